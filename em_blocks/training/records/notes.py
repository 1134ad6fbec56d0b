"""What is found out about a training after it, kept in its records."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from em_blocks.db.trainings.run_database import run_database_if
from em_blocks.errors import RunFailedError
from em_blocks.training.records.json_record import record_of

logger = logging.getLogger(__name__)


def note_training(folder: Path, name: str, value: Any, *, db: str | None = None) -> list[str]:
    """Add a note to the records of the training in `folder`, replacing an earlier one of that name.

    Parameters
    ----------
    value : JSON values
    db : str, optional
        Address of the run database. Default: $EM_BLOCKS_DB.

    Returns
    -------
    list of str
        Where it was noted; none if the folder has no record of a training, or cannot be written.

    Raises
    ------
    DatabaseError
        If the run database cannot be used.
    """
    record, places = record_of(folder), []
    uid = record.read().get("uid")
    try:
        if record.note(name, value):
            places.append(str(record.path))
    except RunFailedError as error:  # of a setup that others installed, for example
        logger.warning("what was found is not noted in the record of the training: %s", error)
    if uid is not None:
        with run_database_if(db) as store:
            document = None if store is None else store.training_of(uid)
            if store is not None and document is not None:
                store.note(document["_id"], name, value)
                places.append(f"training {document['_id']} of the run database")
    return places
