"""What is said of a validation: curves, a line of the log, warnings."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from em_blocks.training.scores.selection import DATA_SETS, UNDEFINED, Choice

logger = logging.getLogger(__name__)

MOST_LISTED = 6
"""Scores in a line of the log: heads of several classes have dozens."""


def known(entry: dict) -> dict[str, float]:
    """Return the scores of an entry of a history, or of one of its data sets, that have a value."""
    return {key: value for key, value in entry.items() if isinstance(value, float)}


def curves(entry: dict) -> dict[str, float]:
    """Return the scores of an entry and of its data sets by the names of their curves."""
    values = {f"validation/{name}": value for name, value in known(entry).items()}
    for row in entry.get(DATA_SETS, []):
        values |= {f"validation/{row['data_set']}/{name}": v for name, v in known(row).items()}
    return values


def log_validation(history: Sequence[dict], choice: Choice, never: Collection[str]) -> None:
    """Log the scores of the last entry; warn of scores without value, and of data sets that are hurt.

    Parameters
    ----------
    history : sequence of dict
    choice : Choice
        By which checkpoints are compared.
    never : collection of str
        Scores that have no value in any case, of which was warned before.
    """
    entry, iteration = history[-1], history[-1]["iteration"]
    logger.info("iteration %d: %s", iteration, _listed(known(entry), choice.score))
    undefined = entry.get(UNDEFINED, {})
    new = {name: why for name, why in undefined.items() if name not in never}
    for reason in sorted(set(new.values())):
        names = ", ".join(name for name, why in new.items() if why == reason)
        logger.warning("iteration %d: no value of %s: %s", iteration, names, reason)
    _warn_of_hurt(history, choice)


def _listed(scores: dict[str, float], first: str) -> str:
    """List some scores, the one that chooses checkpoints first; a record has all."""
    names = sorted(scores, key=lambda name: name != first)
    listed = ", ".join(f"{name} {scores[name]:.4f}" for name in names[:MOST_LISTED])
    more = len(names) - MOST_LISTED
    return f"{listed}; {more} more in record.json" if more > 0 else listed


def _warn_of_hurt(history: Sequence[dict], choice: Choice) -> None:
    """Name the data sets that the best checkpoint so far is worse for than an earlier one."""
    for one in choice.hurt(history):
        logger.warning(
            "iteration %d is the best by the mean of %s, but not for %s: %.4f there, %.4f at iteration "
            "%d. Data sets that are learnt together may want different networks: look at the panels, "
            "change the `weight` of sources, or train one network for each",
            history[-1]["iteration"], choice.score, one["data_set"], one["value"],
            one["best"], one["iteration"],
        )
