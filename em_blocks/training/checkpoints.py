"""Files of a training: full states to resume from, weights to predict with.

Every file is written beside its place and renamed, so a killed training
leaves whole files only.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from em_blocks.errors import CheckpointError, RefusedError
from em_blocks.training.setup import CHECKPOINTS, numbered_checkpoints

KEPT = 2  # the newest may be the one that a full disk or a crash spoiled
_STATE = re.compile(r"state_(\d+)\.pt$")


class TrainingFiles:
    """Checkpoints, states and the record below one folder."""

    def __init__(self, folder: Path):
        self.folder = folder / CHECKPOINTS

    @property
    def record(self) -> Path:
        return self.folder / "record.json"

    def refuse_if_used(self) -> None:
        """Raise `RefusedError` if the folder holds another training."""
        used = [*self.states().values(), *self.folder.glob("*.safetensors")]
        if used:
            raise RefusedError(
                f"{self.folder} already holds a training ({used[0].name}). Continuing it unasked "
                "would mix two trainings, and starting anew would overwrite its weights. Use "
                "--resume to continue it, or --output FOLDER to train elsewhere."
            )

    def states(self) -> dict[int, Path]:
        """Full states by iteration."""
        matches = ((_STATE.match(file.name), file) for file in self.folder.glob("state_*.pt"))
        return {int(match.group(1)): file for match, file in matches if match}

    def load_state(self) -> dict:
        """The newest full state; raises `CheckpointError` if there is none."""
        for partial in self.folder.glob(".*.partial"):  # left by a killed training
            partial.unlink()
        states = self.states()
        if not states:
            raise CheckpointError(
                f"There is no training to resume in {self.folder}: it has no state_*.pt. Start "
                "without --resume."
            )
        path = states[max(states)]
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(
                f"The training state {path} cannot be loaded ({type(error).__name__}). Remove the "
                "file to resume from the state before it."
            ) from error

    def save_state(self, state: dict, iteration: int) -> None:
        """Write a full state and drop all but the newest `KEPT`."""
        _write(self.folder / f"state_{iteration}.pt", lambda path: torch.save(state, path))
        _prune(self.states())

    def save_checkpoint(self, network: nn.Module, iteration: int, about: dict[str, str]) -> None:
        """Write checkpoint_<iteration>.safetensors and drop all but the newest `KEPT`."""
        self._save_weights(f"checkpoint_{iteration}.safetensors", network, about)
        _prune(numbered_checkpoints(self.folder))

    def save_best(self, network: nn.Module, about: dict[str, str]) -> None:
        """Write best.safetensors."""
        self._save_weights("best.safetensors", network, about)

    def save_record(self, record: dict) -> None:
        """Write record.json."""
        text = json.dumps(record, indent=2) + "\n"
        _write(self.record, lambda path: path.write_text(text))

    def _save_weights(self, name: str, network: nn.Module, about: dict[str, str]) -> None:
        # Row-major: the memory format of the training is not part of the weights.
        weights = {key: value.contiguous() for key, value in network.state_dict().items()}
        _write(self.folder / name, lambda path: save_file(weights, path, metadata=about))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.chmod(0o644)  # safetensors makes files that only their owner can read
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _prune(files: dict[int, Path]) -> None:
    for iteration in sorted(files)[:-KEPT]:
        files[iteration].unlink()
