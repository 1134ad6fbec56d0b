"""From the name of a training to its setup and weights, verified to belong together."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from em_blocks.db.trainings.run_database import run_database_if
from em_blocks.errors import CheckpointError, ConfigError
from em_blocks.training.records.json_record import record_of
from em_blocks.training.records.recorded import Recorded, find_recorded

if TYPE_CHECKING:
    from em_blocks.models.setup import Setup

BEST, LATEST = "best", "latest"
_BEST_FILE = "best.safetensors"
_SAID = re.compile(r"(?P<training>.+?)(?::(?P<checkpoint>best|latest|\d+))?")
_USED = {"voxel_size", "network", "heads", "normalization"}
"""Keys of config.json that decide what the weights mean."""


@dataclass(frozen=True)
class TrainedRun:
    """A training whose setup and weights were found and belong together.

    Attributes
    ----------
    number : int or None
        In the run database; None if the training was named by its folder.
    uid : str or None
        Identity of the training; None of records by earlier versions.
    folder : Path
        The setup that it made.
    iteration : int
        Of the weights.
    checkpoint : Path
        The weights.
    sha256 : str
        Of the weights, hex.
    document : dict
        Record of the training.
    """

    number: int | None
    uid: str | None
    folder: Path
    iteration: int
    checkpoint: Path
    sha256: str
    document: dict

    @property
    def setup(self) -> Setup:
        """The setup: architecture, heads, normalisation and voxel size."""
        from em_blocks.models.setup import Setup

        return Setup.from_folder(self.folder)

    def lineage(self) -> dict:
        """Describe the weights for the record of what is made of them, as JSON values."""
        return {
            "number": self.number, "uid": self.uid, "setup": self.document["setup"],
            "iteration": self.iteration, "sha256": self.sha256,
        }


def resolve_training(
    db: str | None, said: str | int, checkpoint: str | int | None = None
) -> TrainedRun:
    """Find the setup and the weights of a training, and verify that they belong together.

    Parameters
    ----------
    db : str or None
        Address of the run database; default: $EM_BLOCKS_DB. Not needed for a folder.
    said : str or int
        Number of a training, or its folder; ``:ITERATION``, ``:best`` or ``:latest`` behind it names
        the weights.
    checkpoint : str or int, optional
        "best", "latest" or an iteration, where `said` does not name it. Default: best.

    Raises
    ------
    ConfigError
        If there is no such training, its folder is not there, or holds another network or config
        than was trained.
    CheckpointError
        If it has no such weights, or the file holds others than were recorded.
    DatabaseError
        If the run database cannot be read.
    """
    name, which = _parts(str(said), checkpoint)
    with run_database_if(db if name.isdecimal() else None) as store:
        training = _newest(find_recorded(store, name))
    check_setup(training)
    known = _choose(training, which)
    path = training.folder / "checkpoints" / known["file"]
    return TrainedRun(
        training.number, training.document.get("uid"), training.folder, known["iteration"], path,
        _checked_sum(training, path, known), training.document,
    )


def check_weights(folder: Path, weights: Path) -> None:
    """Raise `CheckpointError` if the training recorded in `folder` wrote other weights to that file."""
    training = Recorded(None, folder, record_of(folder).read(), dict)
    for known in training.document.get("checkpoints") or ():
        if folder / "checkpoints" / known["file"] == weights:
            _checked_sum(training, weights, known)


def _parts(said: str, checkpoint: str | int | None) -> tuple[str, str]:
    """Split what was said into the training and its weights."""
    found = _SAID.fullmatch(said)
    if found is None:
        raise ConfigError("A training is named by its number, as 3 or 3:2500, or by its folder.")
    named = found["checkpoint"]
    if named and checkpoint is not None and str(checkpoint) != named:
        raise ConfigError(
            f"{said!r} names the weights {named!r} of training {found['training']}, but the checkpoint "
            f"is said to be {str(checkpoint)!r}. Name one of them only."
        )
    which = named or str(BEST if checkpoint is None else checkpoint)
    if which not in (BEST, LATEST) and not which.isdecimal():
        raise ConfigError(
            f"The checkpoint of a training is best, latest or an iteration, not {which!r}: a file "
            "of another place could be of another network. To use one, name the setup instead."
        )
    return found["training"], which


def _newest(training: Recorded) -> Recorded:
    """The training with the newer one of its two documents: that of the database may lag behind."""
    if training.number is None:
        return training
    record = record_of(training.folder).read()
    same = record.get("uid") == training.document["uid"]
    if same and record["updated"] > training.document["updated"]:
        return training._replace(document=record)
    return training


def check_setup(training: Recorded) -> None:
    """Raise `ConfigError` unless the folder holds the network and config that were trained."""
    from em_blocks.models.config import SetupConfig
    from em_blocks.models.setup import Setup

    document, folder = training.document, training.folder
    _check_place(training)
    if (was := document.get("network_py")) != (now := _sha256(folder / "network.py")):
        raise ConfigError(
            f"{folder / 'network.py'} is not the one of {training}: its sha256 is {now}, recorded was "
            f"{was}. The weights would be used in another network than they were trained in. Bring the "
            "file back, or train it again with --output."
        )
    trained = SetupConfig.from_dict(document["config"], folder=folder, source=f"record of {training}")
    there = Setup.from_folder(folder).config
    one, two = trained.model_dump(include=_USED), there.model_dump(include=_USED)
    if differing := sorted(key for key in _USED if one[key] != two[key]):
        raise ConfigError(
            f"{folder / 'config.json'} has other values of {', '.join(differing)} than {training} was "
            "trained with, so a prediction would use the weights in another way. Undo the change, or "
            "name the setup instead of the training if it is meant."
        )


def _check_place(training: Recorded) -> None:
    """Raise `ConfigError` unless the training lies where it is said to."""
    folder, document = training.folder, training.document
    if not folder.is_dir():
        raise ConfigError(
            f"The folder of {training} ({document['setup']}), {folder}, does not exist on this machine; "
            f"it was trained on {document.get('host')}. If it was moved or copied here, say so with: "
            "em-blocks runs import NEW_FOLDER; then its number finds it there."
        )
    if training.number is None:
        return
    uid = record_of(folder).read().get("uid")
    if uid != document["uid"]:
        raise ConfigError(
            f"{folder} no longer holds {training} ({document['setup']}, {document['uid']}), but "
            f"{'another training' if uid else 'no training'}. If it was moved, say so with: em-blocks "
            "runs import NEW_FOLDER."
        )


def _choose(training: Recorded, which: str) -> dict:
    """Find the recorded weights that are named: their file, iteration and sha256."""
    recorded = training.document.get("checkpoints")
    if recorded is None:
        recorded = _of_earlier_version(training.folder)
    numbered = {one["iteration"]: one for one in recorded if one["file"] != _BEST_FILE}
    best = next((one for one in recorded if one["file"] == _BEST_FILE), None)
    if which == BEST:
        found = best
    elif which == LATEST:
        found = numbered[max(numbered)] if numbered else best
    else:
        found = numbered.get(int(which))
        if found is None and best is not None and best["iteration"] == int(which):
            found = best
    if found is None:
        there = sorted({str(n) for n in numbered}, key=int)
        there += [f"best (of {best['iteration']})"] if best else []
        raise CheckpointError(
            f"{training} has no checkpoint {which!r}. It has: {', '.join(there) or 'none yet'}. Older "
            "ones are removed as `training.keep` says."
        )
    return found


def _of_earlier_version(folder: Path) -> list[dict]:
    """Describe the best weights of a training whose record does not list any."""
    path = folder / "checkpoints" / _BEST_FILE
    iteration = (record_of(folder).read().get("best") or {}).get("iteration", 0)
    return [{"file": _BEST_FILE, "iteration": iteration}] if path.is_file() else []


def _checked_sum(training: Recorded, path: Path, known: dict) -> str:
    """Compute the sha256 of weights; raises `CheckpointError` unless it is what was recorded."""
    found = _sha256(path)
    if found is None:
        raise CheckpointError(
            f"The weights of iteration {known['iteration']} of {training}, {path}, do not exist any "
            f"more. Bring the file back, or use other weights: {_others(training, known)}."
        )
    if found != known.get("sha256", found):
        raise CheckpointError(
            f"{path} is not what {training} wrote: its sha256 is {found}, recorded for iteration "
            f"{known['iteration']} was {known['sha256']}. It was replaced or damaged, or the training "
            "was killed while it wrote (then --resume corrects it). Use other weights: "
            f"{_others(training, known)}."
        )
    return found


def _others(training: Recorded, known: dict) -> str:
    """Name the recorded weights but for those of one file."""
    recorded = training.document.get("checkpoints") or ()
    named = [f"{one['iteration']} ({one['file']})" for one in recorded if one["file"] != known["file"]]
    return ", ".join(named) or "none are recorded"


def _sha256(path: Path) -> str | None:
    """Compute the sha256 (hex) of a file; None without it."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None

