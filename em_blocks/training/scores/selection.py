"""Choose the best checkpoint: pure logic over the history of a training."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple


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
