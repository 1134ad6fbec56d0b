"""Which checkpoint is the best: pure logic over the history of a training."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from em_blocks.training.scores.voxels import LOWER_WINS, kind_of


def better(entry: dict, best: dict | None, score: str) -> bool:
    """Whether `entry` of a history is better than the best so far.

    An entry without value never is, and of equal ones the first stays: a resumed training must
    choose as one that was never stopped.
    """
    value = entry.get(score)
    if value is None:
        return False
    if best is None:
        return True
    return value < best[score] if kind_of(score) in LOWER_WINS else value > best[score]


def best_of(
    history: Iterable[dict], score: str, iterations: Collection[int] | None = None
) -> dict | None:
    """The best entry of a history, of those of `iterations` where given; None if none has a value."""
    best = None
    for entry in history:
        if (iterations is None or entry["iteration"] in iterations) and better(entry, best, score):
            best = entry
    return best
