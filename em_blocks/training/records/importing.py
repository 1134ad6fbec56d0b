"""Bring a training from its folder into the run database."""

from __future__ import annotations

from pathlib import Path

from em_blocks.db.connect import with_patience
from em_blocks.db.trainings.store import TrainingStore
from em_blocks.errors import ConfigError, RefusedError
from em_blocks.training.records.json_record import record_of
from em_blocks.training.records.mongo import MongoRecord
from em_blocks.training.records.recorded import recorded_in


def import_training(store: TrainingStore, folder: Path) -> int:
    """Add the training in `folder` to the run database, or bring its document up to date.

    A training keeps its number, also when its folder has moved.

    Returns
    -------
    int
        Its number.

    Raises
    ------
    ConfigError
        If there is no training in `folder`, or its record is of a version without identities.
    RefusedError
        If it is running: its own process writes the document; or if the folder is a copy.
    """
    training = recorded_in(folder)
    document = training.document
    if "uid" not in document:
        raise ConfigError(
            f"The record of the training in {folder} has no `uid`: an earlier version wrote it, and "
            "another import would add it a second time. Continue it with --resume, which gives it one."
        )
    if document["state"] == "running":
        raise RefusedError(
            f"The training in {folder} is running ({document['host']}), and its record changes. Import "
            "it when it has ended, or train with --db."
        )
    with_patience(store.prepare)
    refuse_copy(store, document["uid"], training.folder)
    return MongoRecord(store, training.folder, training.curves).write_once(document)


def refuse_copy(store: TrainingStore, uid: str | None, folder: Path) -> None:
    """Raise `RefusedError` if the training `uid` of the run database lies in another folder.

    Only one that is still there counts: a training may move.
    """
    there = store.training_of(uid) if uid else None
    place = Path((there or {}).get("folder", folder))
    if place.resolve() != folder.resolve() and record_of(place).read().get("uid") == uid:
        raise RefusedError(
            f"{folder} is a copy of training {there['_id']} in {place}. Both would write one document, "
            "and their curves would mix. To make the copy a training of its own, remove the line "
            f"'uid' from {record_of(folder).path}."
        )
