"""What a training begins with: weights of another one, or its whole state."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import nn

from em_blocks.errors import CheckpointError
from em_blocks.models.config import SetupConfig
from em_blocks.models.head import Head
from em_blocks.models.initial import load_initial_weights
from em_blocks.models.setup import weight_differences
from em_blocks.training.checkpoints import TrainingFiles, read_state
from em_blocks.training.records.resolve import LATEST, resolve_training
from em_blocks.training.trainer import Trainer

logger = logging.getLogger(__name__)

_CHECKPOINT = re.compile(r":(best|latest|\d+)$")


class Start(NamedTuple):
    """File that a training begins with, and where it comes from, for the record."""

    path: Path
    lineage: dict


def start_of(said: str, *, full_state: bool = False, db: str | None = None) -> Start:
    """Find the file that ``--start-from RUN[:CHECKPOINT]`` means, and verify it.

    Parameters
    ----------
    said : str
        As of `resolve_training`: a number in the run database or a folder; best, latest or an iteration.
    full_state : bool
        Whether the optimiser's state is wanted too: that of the iteration, by default of the latest.
    db : str or None
        Address of the run database.

    Raises
    ------
    ConfigError, CheckpointError, DatabaseError
        If there is no such training or file, or it is not what was recorded.
    """
    named = _CHECKPOINT.search(said) is not None
    run = resolve_training(db, said, LATEST if full_state and not named else None)
    if not full_state:
        return Start(run.checkpoint, {"start_from": run.lineage()})
    states = TrainingFiles(run.folder).states()
    if run.iteration not in states:
        found = ", ".join(states[iteration].name for iteration in sorted(states))
        raise CheckpointError(
            f"--full-state needs the state of iteration {run.iteration} of {run.folder}, but there are: "
            f"{found or 'none'}. Of a training, the newest two stay. Name one of these, or leave "
            "--full-state out to begin with weights only."
        )
    return Start(states[run.iteration], {"start_from": {**run.lineage(), "full_state": True}})


def is_state(path: Path) -> bool:
    """Tell whether a file is named as the full state of a training, and not as weights."""
    return path.name.startswith("state_") and path.suffix == ".pt"


def channels_of(heads: Mapping[str, Head]) -> dict[str, list[str]]:
    """Name the channels of the heads that name them."""
    named = {name: getattr(head, "channel_names", None) for name, head in heads.items()}
    return {name: list(channels) for name, channels in named.items() if channels}


def begin_with_weights(network: nn.Module, config: SetupConfig) -> None:
    """Load the weights that `training.initial` names; a full state is left to `begin_with_state`."""
    path = config.to_train().initial
    if path is None or is_state(path):
        return
    found = load_initial_weights(network, path, channels_of(config.heads))
    logger.info(
        "weights of %s; new: %s; of no use here: %s", path.name,
        ", ".join(found.new) or "none", ", ".join(found.unused) or "none",
    )


def begin_with_state(trainer: Trainer, path: Path | None) -> None:
    """Go on from the weights, their average and the optimiser of a state, from iteration 0.

    Learning rate and weight decay are those of the config, whatever the state was made with.

    Raises
    ------
    CheckpointError
        If the state is of another network, or of other trained parameters.
    """
    if path is None or not is_state(path):
        return
    state = read_state(path)["trainer"]
    if problems := weight_differences(trainer.network.state_dict(), state["network"]):
        raise CheckpointError(
            f"{path} is the state of another network: {'; '.join(problems)}. A full state continues the "
            "optimiser, weight by weight. Use the same network, or begin with weights only: "
            "--start-from without --full-state, or a .safetensors file as training.initial."
        )
    try:
        trainer.begin_with(state)
    except ValueError as error:
        raise CheckpointError(
            f"The optimiser of {path} cannot go on here ({error}): it has trained other parameters. Use "
            "the same `training.freeze`, or begin with weights only, without --full-state."
        ) from error
    logger.info("weights, average and optimiser of %s", path.name)
