"""Trainings as they were recorded: in the run database, or in their folders."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from em_blocks.db.trainings.series import Series
from em_blocks.db.trainings.store import DEAD, DEAD_AFTER_S, RUNNING, TrainingStore
from em_blocks.errors import ConfigError
from em_blocks.training.records.json_record import JsonRecord, record_of
from em_blocks.training.records.metrics_file import metrics_of

logger = logging.getLogger(__name__)

_NEEDED = {"setup", "config", "iteration"}
_DEEPEST = 5
_NO_FOLDERS = (".zarr", ".n5", ".precomputed")  # hold thousands of files, and no training


class Recorded(NamedTuple):
    """A training as it was recorded.

    Attributes
    ----------
    number : int or None
        Its `_id` in the run database; None for one that was read from its folder.
    folder : Path
        Where it lay when it was recorded.
    document : dict
    read_curves : function
    """

    number: int | None
    folder: Path
    document: dict
    read_curves: Callable[[], dict[str, Series]]

    def __str__(self) -> str:
        return f"training in {self.folder}" if self.number is None else f"training {self.number}"

    @property
    def label(self) -> str:
        """Short name for tables and diagrams."""
        name = self.document.get("setup", "?")
        return f"{self.folder.name} ({name})" if self.number is None else f"{self.number} ({name})"

    def curves(self) -> dict[str, Series]:
        """Read its curves by name; of records without them, the scores of the history."""
        return self.read_curves() or _history(self.document)


def find_recorded(store: TrainingStore | None, said: str) -> Recorded:
    """Find a training by its number in the run database, or by its folder.

    Raises
    ------
    ConfigError
        If there is none; names those that exist.
    """
    if not said.isdecimal():
        return recorded_in(Path(said))
    if store is None:
        raise ConfigError(
            f"Training {said} is looked up in the run database, but none is named. Give --db ADDRESS (a "
            "MongoDB server, or a folder) or set EM_BLOCKS_DB; or name the training by its folder."
        )
    document = store.training(int(said))
    if document is None:
        raise ConfigError(f"The run database has no training {said}. {existing(store)}")
    return of_database(store, document)


def of_database(store: TrainingStore, document: dict) -> Recorded:
    """Make a training of a document of the run database."""
    number = document["_id"]
    return Recorded(
        number, Path(document.get("folder", "")), document, lambda: store.curves(number)
    )


def recorded_in(folder: Path) -> Recorded:
    """Read the record of the training in `folder`; raises `ConfigError` if there is none."""
    folder = folder.absolute()
    record = record_of(folder)
    document = _read(record)
    if not document:
        raise ConfigError(
            f"There is no training in {folder}: it has no {record.path.relative_to(folder)}. Name the "
            "folder that `em-blocks train` wrote to (--output, else that of the setup), or the number "
            "of a training in the run database."
        )
    if document.get("state") == RUNNING and not _lives(record.path.parent / "training.lock"):
        document["state"] = DEAD
    return Recorded(None, folder, document, metrics_of(folder).read)


def _read(record: JsonRecord) -> dict:
    try:
        document = record.read()
    except ValueError as error:
        raise ConfigError(
            f"{record.path} is no record of a training: it is no JSON ({error}). Bring the file "
            "back, or remove it."
        ) from error
    if document and (missing := sorted(_NEEDED - document.keys())):
        raise ConfigError(
            f"{record.path} is no record of a training: it has no {', '.join(missing)}. Bring the file "
            "back, or remove it."
        )
    return document


def recorded_below(folder: Path) -> Iterator[Recorded]:
    """Yield the trainings that are recorded in `folder` and below, sorted by their folders."""
    for place, folders, _ in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        folders[:] = sorted(
            name for name in folders
            if depth < _DEEPEST and not name.startswith(".") and not name.endswith(_NO_FOLDERS)
        )
        if record_of(Path(place)).path.is_file():
            try:
                yield recorded_in(Path(place))
            except ConfigError as error:
                logger.warning("%s", error)


def existing(store: TrainingStore, most: int = 8) -> str:
    """Say which trainings the run database has, the newest ones if there are many."""
    found = store.recorded_trainings()
    if not found:
        return "It has none yet: train with --db, or add a folder with `em-blocks runs import FOLDER`."
    named = [f"{d['_id']} ({d.get('setup')}, {d.get('state')})" for d in found[-most:]]
    older = f"{len(found) - most} older ones and " if len(found) > most else ""
    return f"It has {older}{', '.join(named)}; `em-blocks runs list` shows them."


def summary(training: Recorded) -> dict:
    """Return what a list says of a training, as JSON values."""
    document = training.document
    best, score = document.get("best"), document["config"]["training"]["score"]
    return {
        "id": training.number, "uid": document.get("uid"), "setup": document["setup"],
        "state": document.get("state", "unknown"), "iteration": document["iteration"],
        "iterations": document["config"]["training"]["iterations"],
        "best": best and {"iteration": best["iteration"], "score": score, "value": best[score]},
        "started": document.get("started"), "seconds": document.get("seconds"),
        "host": document.get("host"), "folder": str(training.folder),
    }


def _lives(lock: Path) -> bool:
    """Tell whether the process that holds a lock touched it recently."""
    try:
        return time.time() - lock.stat().st_mtime < DEAD_AFTER_S
    except FileNotFoundError:
        return False


def _history(document: dict) -> dict[str, Series]:
    found: dict[str, Series] = {}
    for entry in document.get("history", ()):
        for name, value in entry.items():
            if isinstance(value, (int, float)) and name != "iteration":
                found.setdefault(f"validation/{name}", Series()).add(entry["iteration"], value, 0.0)
    return found
