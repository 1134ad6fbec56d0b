"""How a training ended, in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from em_blocks.errors import RunFailedError
from em_blocks.models.config import TrainingConfig
from em_blocks.training.scores.selection import UNDEFINED


def outcome(
    config: TrainingConfig, done: int, history: Sequence[dict], best: dict | None, weights: Path
) -> str:
    """Say that `done` iterations are done, and where the best checkpoint is.

    Parameters
    ----------
    weights : Path
        Of the best checkpoint.

    Raises
    ------
    RunFailedError
        If there is no best checkpoint.
    """
    if best is None:
        why = {entry.get(UNDEFINED, {}).get(config.score) for entry in history} - {None}
        raise RunFailedError(
            f"{done} iterations are done, but there is no best checkpoint: {config.score} had no value "
            f"in any of {len(history)} validations "
            f"({'; '.join(sorted(why)) or 'its weights were not kept'}). The last weights are in "
            f"{weights.parent}/checkpoint_{done}.safetensors; look at them before you use them. "
            "--resume with another training.score and more iterations goes on."
        )
    early = (
        "" if done == config.iterations else
        f", not all {config.iterations}: {config.patience} validations were no better"
    )
    return (
        f"{done} iterations are done{early}. Best checkpoint: {weights}, of iteration "
        f"{best['iteration']} with {config.score} {best[config.score]:.4f}."
    )
