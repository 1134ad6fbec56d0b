"""Choose the best checkpoint: pure logic over the history of a training."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

UNDEFINED = "undefined"
"""Key of an entry of a history that says why scores are null."""
DATA_SETS = "data_sets"
"""Key of an entry with the scores of every data set, where there are several."""
WORSE = 0.05
"""Share of its own best score that a data set may lose before it counts as hurt."""


class Choice(NamedTuple):
    """Rule by which checkpoints are compared."""

    score: str
    lower_wins: bool = False

    def better(self, entry: dict, best: dict | None) -> bool:
        """Tell whether `entry` of a history is better than the best so far.

        An entry without value never is, and of equal ones the first stays: a resumed training must
        choose as one that was never stopped.
        """
        value = entry.get(self.score)
        if value is None:
            return False
        if best is None:
            return True
        return value < best[self.score] if self.lower_wins else value > best[self.score]

    def ranking(self, history: Iterable[dict]) -> list[dict]:
        """Sort the entries that have a value, the best first and of equal ones the earlier."""
        known = [entry for entry in history if entry.get(self.score) is not None]
        sign = 1 if self.lower_wins else -1
        return sorted(known, key=lambda entry: sign * entry[self.score])

    def best_of(
        self, history: Iterable[dict], iterations: Collection[int] | None = None
    ) -> dict | None:
        """Find the best entry of a history, of `iterations` where given; None if none has a value."""
        best = None
        for entry in history:
            if iterations is None or entry["iteration"] in iterations:
                if self.better(entry, best):
                    best = entry
        return best

    def hurt(self, history: Sequence[dict]) -> list[dict]:
        """Find the data sets that are worse off at the last entry of a history, which is its best.

        One is hurt if its score is worse than its own best by more than `WORSE` of that: the data sets
        that are learnt together want different weights, and the mean of all does not show it.

        Returns
        -------
        list of dict
            Of every one "data_set", "value", "best" and the "iteration" of its best; none if the last
            entry is not the best.
        """
        if not history or self.best_of(history) is not history[-1]:
            return []
        found = []
        for now in history[-1].get(DATA_SETS, []):
            own = [{"iteration": one["iteration"], **row} for one in history
                   for row in one.get(DATA_SETS, []) if row["data_set"] == now["data_set"]]
            best, value = self.best_of(own), now.get(self.score)
            if best is not None and value is not None and self._loss(value, best) > WORSE:
                found.append({
                    "data_set": now["data_set"], "value": value, "best": best[self.score],
                    "iteration": best["iteration"],
                })
        return found

    def _loss(self, value: float, best: dict) -> float:
        """Return what `value` lacks of a best one, as a share of that."""
        lost = best[self.score] - value
        return (-lost if self.lower_wins else lost) / max(abs(best[self.score]), 1e-9)
