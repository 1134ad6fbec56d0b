"""Files of a training: full states to resume from, weights to predict with.

Every file is written beside its place and renamed, so a killed training
leaves whole files only.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from em_blocks.errors import CheckpointError, ConfigError, RefusedError
from em_blocks.models.config import Retention
from em_blocks.models.setup import CHECKPOINTS, numbered_checkpoints
from em_blocks.training.records.json_record import JsonRecord, record_of
from em_blocks.training.records.whole_file import write_whole
from em_blocks.training.weights_file import save_weights

BEST = "best.safetensors"
STATES = 2  # that are kept: the newest may be the one that a full disk or a crash spoiled
_STATE = re.compile(r"state_(\d+)\.pt$")


class TrainingFiles:
    """Checkpoints, states and the record below one folder.

    Parameters
    ----------
    folder : Path
    keep : Retention
        Which checkpoints stay.
    """

    def __init__(self, folder: Path, keep: Retention | None = None):
        self.folder, self.keep = folder / CHECKPOINTS, keep or Retention()
        self._sums: dict[tuple, str] = {}

    @property
    def record(self) -> JsonRecord:
        return record_of(self.folder.parent)

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
        """List full states by iteration."""
        matches = ((_STATE.match(file.name), file) for file in self.folder.glob("state_*.pt"))
        return {int(match.group(1)): file for match, file in matches if match}

    def load_state(self) -> dict:
        """Load the newest full state; raises `CheckpointError` if there is none."""
        for partial in self.folder.glob(".*.partial"):  # left by a killed training
            partial.unlink()
        states = self.states()
        if not states:
            raise CheckpointError(
                f"There is no training to resume in {self.folder}: it has no state_*.pt. Start "
                "without --resume."
            )
        return read_state(states[max(states)])

    def save_state(self, state: dict, iteration: int) -> None:
        """Write a full state and drop all but the newest `STATES`."""
        write_whole(self.folder / f"state_{iteration}.pt", lambda path: torch.save(state, path))
        states = self.states()
        _prune(states, sorted(states)[-STATES:])

    def save_checkpoint(
        self, network: nn.Module, iteration: int, about: dict[str, str],
        best: Collection[int] = (),
    ) -> Path:
        """Write checkpoint_<iteration>.safetensors and drop those that `keep` does not name.

        Parameters
        ----------
        best : collection of int
            Iterations that stay as well.
        """
        path = self._save_weights(f"checkpoint_{iteration}.safetensors", network, about)
        numbered = numbered_checkpoints(self.folder)
        _prune(numbered, {*self.keep.of(numbered), *best})
        return path

    def save_best(self, network: nn.Module, about: dict[str, str]) -> None:
        """Write best.safetensors."""
        self._save_weights(BEST, network, about)

    def weights_at_hand(self) -> dict[int, Path]:
        """List weights of this folder by iteration; best.safetensors before a copy of the same."""
        numbered = numbered_checkpoints(self.folder)
        best = self.folder / BEST
        iteration = _iteration_of(best) if best.is_file() else None
        return numbered if iteration is None else numbered | {iteration: best}

    def described(self) -> list[dict]:
        """Describe the weights that are there, by iteration: file, iteration, sha256 (hex), bytes."""
        numbered, best = numbered_checkpoints(self.folder), self.folder / BEST
        files = [(iteration, numbered[iteration]) for iteration in sorted(numbered)]
        if best.is_file() and (iteration := _iteration_of(best)) is not None:
            files.append((iteration, best))
        return [
            {"file": file.name, "iteration": iteration, "sha256": self._sha256(file),
             "bytes": file.stat().st_size}
            for iteration, file in files
        ]

    def _sha256(self, file: Path) -> str:
        """Compute the sha256 of a file, once for as long as it stays the same."""
        status = file.stat()
        key = (file.name, status.st_ino, status.st_mtime_ns, status.st_size)
        if key not in self._sums:
            self._sums[key] = hashlib.sha256(file.read_bytes()).hexdigest()
        return self._sums[key]

    def make_best(self, iteration: int) -> None:
        """Make the weights of `iteration`, one of `weights_at_hand`, best.safetensors."""
        source = self.weights_at_hand()[iteration]
        if source.name != BEST:
            write_whole(self.folder / BEST, lambda path: shutil.copyfile(source, path))

    def check_space(self, network: nn.Module, iterations: int) -> None:
        """Raise `ConfigError` if the disk cannot hold what a training of `network` writes."""
        weights = sum(value.nbytes for value in network.state_dict().values())
        state = 4 * weights  # network, average and two moments
        there = [*self.states().values(), *self.folder.glob("*.safetensors")]
        kept = self.keep.most(iterations)
        in_all = STATES * state + kept * weights - sum(file.stat().st_size for file in there)
        # The oldest goes once the newest is whole, so one more of each fits in any case.
        needed = max(in_all, 0) + state + weights
        existing = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if needed > free:
            raise ConfigError(
                f"The disk of {self.folder} is too small: states and checkpoints need up to "
                f"{needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free. The training would stop at a "
                "checkpoint; free some space, or use --output with a folder of another disk."
            )

    def _save_weights(self, name: str, network: nn.Module, about: dict[str, str]) -> Path:
        write_whole(self.folder / name, lambda path: save_weights(network, path, about))
        return self.folder / name


def read_state(path: Path) -> dict:
    """Load a full state; nothing in the file is executed.

    Raises
    ------
    CheckpointError
        If it is missing, damaged, or no state of a training.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(
            f"The training state {path} cannot be loaded ({type(error).__name__}). Remove the "
            "file to resume from the state before it."
        ) from error
    if not isinstance(state, dict) or "trainer" not in state:
        raise CheckpointError(
            f"{path} is no state of a training. Use a state_*.pt of the folder checkpoints/ of one."
        )
    return state


def _iteration_of(weights: Path) -> int | None:
    """Read the iteration that a file of weights says of itself."""
    try:
        with safe_open(weights, "pt") as file:
            return int((file.metadata() or {})["iteration"])
    except (SafetensorError, KeyError, ValueError):
        return None  # damaged, or not of a training: no checkpoint to choose


def _prune(files: dict[int, Path], kept: Collection[int]) -> None:
    for iteration in files.keys() - set(kept):
        files[iteration].unlink()
