"""The run database by its address: that of a server, or a folder for an embedded one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from em_blocks.db.connect import connect, database_uri
from em_blocks.db.trainings.store import TrainingStore
from em_blocks.errors import DatabaseError

VARIABLE = "EM_BLOCKS_DB"
"""Environment variable with the address, where no command names another."""
_NAME = "em_blocks"
_FOLDERS = ("/", "./", "../", "~")


def run_address(said: str | None) -> str | None:
    """Return the address of the run database: `said`, else that of the environment; None without one."""
    return said or os.environ.get(VARIABLE) or None


@contextmanager
def run_database(address: str, name: str = _NAME) -> Iterator[TrainingStore]:
    """Open the run database.

    Parameters
    ----------
    address : str
        A host or MongoDB URI (its path names the database, em_blocks by default), ``file:PATH`` of
        a private file with one, or a folder (``/path``, ``./path``, ``~/path``), whose embedded server
        runs while something uses it.
    name : str
        Of the database, unless a URI names it.

    Raises
    ------
    DatabaseError
        If it cannot be used; nothing was written.
    """
    is_folder = address.startswith(_FOLDERS)
    home = Path(address).expanduser().absolute() if is_folder else Path()
    entered = False
    try:
        with database_uri(None if is_folder else address, home) as uri, connect(uri) as client:
            entered = True
            yield TrainingStore(client.get_default_database(name))
    except DatabaseError as error:
        if entered:
            raise
        raise DatabaseError(_adapted(str(error))) from error


@contextmanager
def run_database_if(said: str | None) -> Iterator[TrainingStore | None]:
    """Open the run database of `said` or of the environment; None if neither names one."""
    address = run_address(said)
    if address is None:
        yield None
        return
    with run_database(address) as store:
        yield store


def _adapted(message: str) -> str:
    """Return a message on the database of a run in the words of this one."""
    return message.replace("'db_host'", f"--db (or {VARIABLE})").replace(
        "Finished blocks are recorded there, so nothing can start without it.",
        "Trainings are recorded there. Without --db a training is recorded in its folder alone, and "
        "`em-blocks runs import FOLDER` adds it to a database later.",
    )
