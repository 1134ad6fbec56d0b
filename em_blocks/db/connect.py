"""A client for the configured database, with errors that say what to do."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pymongo
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)

from em_blocks.db.server import embedded_server, running_uri
from em_blocks.errors import DatabaseError

SELECT_TIMEOUT_MS = 10_000
OUTAGE_S = 120.0

Result = TypeVar("Result")

ServerError = PyMongoError
"""What any database call may raise while the server is away."""


def database_home(home: Path) -> Path:
    """Folder of the embedded database of a run folder."""
    return home / "db"


@contextmanager
def database_uri(db_host: str | None, home: Path) -> Iterator[str]:
    """URI of the database: the configured one, or an embedded server that is held meanwhile."""
    if db_host is not None:
        yield expand_uri(db_host)
        return
    with embedded_server(database_home(home)) as uri:
        yield uri


def uri_if_running(db_host: str | None, home: Path) -> str | None:
    """URI of the database without starting one."""
    return expand_uri(db_host) if db_host is not None else running_uri(database_home(home))


def expand_uri(db_host: str) -> str:
    """A URI from a host name or URI, with environment variables filled in."""
    uri = os.path.expandvars(db_host)
    if missing := re.search(r"\$\{?\w+\}?", uri):
        raise DatabaseError(
            f"'db_host' uses the environment variable {missing.group(0)}, which is not set. Export it "
            "in the shell (and in the job environment of a cluster)."
        )
    return uri if uri.startswith(("mongodb://", "mongodb+srv://")) else f"mongodb://{uri}"


def redacted(uri: str) -> str:
    """`uri` without user, password and options, for messages."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextmanager
def connect(uri: str) -> Iterator[pymongo.MongoClient]:
    """A client whose server answered.

    Raises
    ------
    DatabaseError
        If the URI is wrong, nobody answers, or the login is refused.
    """
    try:
        client = pymongo.MongoClient(uri, serverSelectionTimeoutMS=SELECT_TIMEOUT_MS, tz_aware=True)
    except (InvalidURI, ConfigurationError, ValueError) as error:
        raise DatabaseError(
            f"'db_host' is not a usable MongoDB address ({type(error).__name__}). Give host:port, or a "
            "URI mongodb://user:${PASSWORD}@host:port/?options with special characters escaped."
        ) from error
    with client:
        try:
            client.admin.command("ping")
        except PyMongoError as error:
            raise DatabaseError(unreachable(uri, error)) from error
        yield client


def unreachable(uri: str, error: PyMongoError) -> str:
    """One paragraph on a database that cannot be used."""
    reason = str(error).split(", Timeout")[0][:300]
    kind = "refused" if isinstance(error, OperationFailure) else "does not answer"
    return (
        f"The database at {redacted(uri)} {kind}: {reason}. Finished blocks are recorded there, so "
        "nothing can start without it. Check 'db_host' and that mongod runs and can be reached from "
        "here; without 'db_host' a private server is started."
    )


def with_patience(call: Callable[[], Result]) -> Result:
    """Repeat `call` while the database is away; only for what may be done twice.

    Raises
    ------
    DatabaseError
        If the database stayed away for `OUTAGE_S`.
    """
    deadline = time.monotonic() + OUTAGE_S
    while True:
        try:
            return call()
        except AutoReconnect as error:
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"The database was away for more than {OUTAGE_S:.0f} s; this worker gives up."
                ) from error
            time.sleep(0.2)
