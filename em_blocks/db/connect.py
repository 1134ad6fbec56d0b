"""A client for the configured database, and calls that outlive its outages."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pymongo
from pymongo.errors import ConfigurationError, InvalidURI, PyMongoError
from pymongo.uri_parser import parse_uri

from em_blocks.db.address import expand_uri, redacted, remember, scrub
from em_blocks.db.problems import is_outage, is_refusal, lost, unreachable
from em_blocks.db.server import embedded_server, running_uri, why_down
from em_blocks.errors import DatabaseError, DatabaseLostError, EmBlocksError

__all__ = [
    "OUTAGE_S", "ServerError", "connect", "database_home", "database_uri", "expand_uri", "redacted",
    "scrub", "unreachable", "uri_if_running", "with_patience",
]

SELECT_TIMEOUT_MS = 5_000
OUTAGE_S = 120.0

# A link that is cut sends no sign of it. The client's monitor asks the server every 5 s and
# waits 5 s for the answer; without one it ends the calls that are under way, so they fail
# after at most 10 s. There is no socketTimeoutMS: a call may take long while the server works on it (an
# index, the rows of a large run), and a time limit could not tell that from a cut link.
# Routers forget connections that are idle for long: they are not used again after a minute.
# retryWrites stays on: a replica set takes back to a new primary what it has half done. A server
# that stands alone does not know it; `with_patience` is for both.
_OPTIONS = {
    "heartbeatFrequencyMS": 5_000, "connectTimeoutMS": 5_000, "maxIdleTimeMS": 60_000,
    "appname": "em_blocks", "tz_aware": True,
}
_LONGEST_PAUSE_S = 2.0

Result = TypeVar("Result")

ServerError = PyMongoError
"""What any database call may raise while the server is unavailable."""


def database_home(home: Path) -> Path:
    """Return the folder of the embedded database of a run folder."""
    return home / "db"


@contextmanager
def database_uri(db_host: str | None, home: Path) -> Iterator[str]:
    """Yield the URI of the database: the configured one, or an embedded server held meanwhile.

    An error that ends its use while an embedded server is down says why that is down.
    """
    if db_host is not None:
        yield expand_uri(db_host)
        return
    with embedded_server(database_home(home)) as uri:
        try:
            yield uri
        except EmBlocksError as error:
            if (why := why_down(database_home(home))) and why not in str(error):
                raise type(error)(f"{error} {why}") from error
            raise


def uri_if_running(db_host: str | None, home: Path) -> str | None:
    """Return the URI of the database without starting one."""
    return expand_uri(db_host) if db_host is not None else running_uri(database_home(home))


@contextmanager
def connect(uri: str, *, outage_s: float = 0.0) -> Iterator[pymongo.MongoClient]:
    """Yield a client whose server answered and accepted the login.

    Parameters
    ----------
    outage_s : float
        How long to wait for an unavailable server: for workers, whose run has begun.

    Raises
    ------
    DatabaseError
        If the URI is wrong, no server answers, or the login is refused; also if a call of the block is
        refused and the block does not handle that.
    DatabaseLostError
        If the server is lost during the block and the block does not handle that.
    """
    with _client(uri) as client:
        try:
            with_patience(lambda: _greet(client), outage_s) if outage_s else _greet(client)
        except PyMongoError as error:
            raise DatabaseError(unreachable(uri, error)) from error
        try:
            yield client
        except PyMongoError as error:
            if is_outage(error):
                raise DatabaseLostError(lost(f"at {redacted(uri)} was lost", error)) from error
            if is_refusal(error):
                raise DatabaseError(unreachable(uri, error)) from error
            raise


def _greet(client: pymongo.MongoClient) -> None:
    # Unlike ping this needs a login where there are logins; any user may do it.
    client.admin.command("listDatabases", nameOnly=True, authorizedDatabases=True)


def _client(uri: str) -> pymongo.MongoClient:
    options: dict[str, Any] = {"serverSelectionTimeoutMS": SELECT_TIMEOUT_MS, **_OPTIONS}
    remember(uri)
    chosen = {name: v for name, v in options.items() if f"{name}=".lower() not in uri.lower()}
    try:
        parse_uri(uri)  # unlike the client, it refuses options that are misspelt
        return pymongo.MongoClient(uri, **chosen)
    except (InvalidURI, ConfigurationError, ValueError, OSError) as error:
        if "DNS" in str(error):  # of mongodb+srv://
            raise DatabaseError(unreachable(uri, error)) from error
        reason = scrub(str(error))[:300].rstrip(". ")
        raise DatabaseError(
            f"'db_host' is not a usable MongoDB address: {reason}. Give host:port, or a "
            "URI mongodb://user:${PASSWORD}@host:port/?options with special characters escaped."
        ) from None  # the context may quote what is no message's business


def with_patience(call: Callable[[], Result], outage_s: float = OUTAGE_S) -> Result:
    """Repeat `call` while the database is unavailable; only for what may be done twice.

    A call that seemed to fail may have been done, or be done later still: a cut link delivers what
    it held when it heals. So what `call` writes must be right whenever, and however often, any part of
    it arrives: rows with ids of their own, never "delete all and add".

    Parameters
    ----------
    outage_s : float
        Seconds from the first failure after which nothing is begun any more.

    Raises
    ------
    DatabaseLostError
        If the database stayed unavailable for longer.
    pymongo.errors.PyMongoError
        At once, for what waiting does not heal: a login or a right that is missing, a full disk.
    """
    since, pause = None, 0.1
    while True:
        try:
            return call()
        except PyMongoError as error:
            if not is_outage(error):
                raise
            now = time.monotonic()
            since = since or now
            if now - since >= outage_s:
                away = f"was unavailable for more than {outage_s:g} s ('db_outage_s')"
                raise DatabaseLostError(lost(away, error)) from error
        # Not all workers at once: thousands of them may have waited for this server.
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, _LONGEST_PAUSE_S)
