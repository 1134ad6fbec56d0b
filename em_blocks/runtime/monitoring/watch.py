"""Periodic views of a run, also while its database is unavailable."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime

from em_blocks.db.connect import (
    ServerError,
    connect,
    database_home,
    database_uri,
    uri_if_running,
)
from em_blocks.db.progress import answered_within
from em_blocks.db.runs import RunStore
from em_blocks.errors import DatabaseError
from em_blocks.runtime.monitoring.overview import StepView, overview
from em_blocks.tasks.base import BlockwiseTask

PERIOD_S = 2.0
QUERY_S = 30.0
CONNECT_S = 5.0
# Looking takes at most one part in this many of the server's time.
SHARE = 3
IDLE_S = 30.0

LOG = logging.getLogger(__name__)

Stores = Mapping[StepView, RunStore]
UNAVAILABLE = (DatabaseError, ServerError)


class Database:
    """Finds the runs of the steps of a config as soon as their database exists.

    An embedded server is held once it was reached: the page of a run must outlive the run.

    Parameters
    ----------
    steps : mapping of StepView to BlockwiseTask
        All with the same database.
    """

    def __init__(self, steps: Mapping[StepView, BlockwiseTask]):
        self._steps = steps
        self._task = next(iter(steps.values()))
        self._open = ExitStack()
        self._uri: str | None = None
        self._stores: Stores = {}

    def stores(self) -> Stores:
        """Return the stores of all steps.

        Raises
        ------
        DatabaseError
            If the run was not started yet, or the database cannot be reached.
        """
        task = self._task
        if task.db_host is None and not database_home(task.home).exists():
            raise DatabaseError(
                f"There is no database in {database_home(task.home)} yet: no run of this config was "
                "started. This goes on by itself as soon as one is."
            )
        # An embedded server that was restarted may have another port.
        running = uri_if_running(task.db_host, task.home)
        if self._uri is None or running not in (None, self._uri):
            self._connect()
        return self._stores

    def close(self) -> None:
        """Release the database."""
        self._open.close()
        self._uri, self._stores = None, {}

    def _connect(self) -> None:
        self.close()
        with ExitStack() as stack:
            uri = stack.enter_context(database_uri(self._task.db_host, self._task.home))
            with answered_within(CONNECT_S):
                client = stack.enter_context(connect(uri))
            self._stores = {
                step: RunStore(client, task.db_name, task.run) for step, task in self._steps.items()
            }
            self._open, self._uri = stack.pop_all(), uri


class Watcher:
    """Keeps the latest overview of the steps of a config.

    As a context manager it looks periodically in a thread, while `snapshot` is called.

    Parameters
    ----------
    look : function
        Returns the stores of all steps, or raises why the database is unavailable.
    """

    def __init__(self, look: Callable[[], Stores]):
        self._look = look
        self._known: Stores = {}
        self._found: dict = {"steps": [], "workers": [], "worker_states": {}, "failures": []}
        self._looked: datetime | None = None
        self._away: dict | None = None
        self._pause, self._asked = PERIOD_S, time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="watcher", daemon=True)

    def refresh(self) -> dict:
        """Look now and return the `snapshot`."""
        start = time.monotonic()
        try:
            with answered_within(QUERY_S):
                self._known = self._look()
                self._found = overview(self._known)
            self._looked, self._away = datetime.now(UTC), None
        except UNAVAILABLE as error:
            self._missed(str(error).split(", Timeout")[0][:500])
        self._pause = max(PERIOD_S, SHARE * (time.monotonic() - start))
        return self.snapshot()

    def snapshot(self) -> dict:
        """Return the latest overview, with ``looked`` (when, or None) and ``away`` (None: available)."""
        self._asked = time.monotonic()
        return {**self._found, "looked": self._looked and self._looked.isoformat(), "away": self._away}

    def store(self, name: str) -> tuple[StepView, RunStore]:
        """Return the step of that name and its store.

        Raises
        ------
        DatabaseError
            If there is none, or the database was never reached.
        """
        for step, store in self._known.items():
            if step.name == name:
                return step, store
        raise DatabaseError(f"There is no step {name!r}, or the database was not reached yet.")

    def _missed(self, message: str) -> None:
        since = self._away["since"] if self._away else datetime.now(UTC).isoformat()
        self._away = {"since": since, "message": message}

    # -- the watching thread ------------------------------------------------------------

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *exc) -> None:
        self._stop.set()
        self._thread.join(PERIOD_S)  # it may wait for a server that never answers

    def _repeat(self) -> None:
        while not self._stop.is_set():
            try:
                self.refresh()
            except Exception as error:  # a page that stands still without a reason would be worse
                LOG.exception("looking at the run failed")
                self._missed(f"{type(error).__name__}: {error}")
            self._stop.wait(self._pause)
            while time.monotonic() - self._asked > IDLE_S and not self._stop.is_set():
                self._stop.wait(0.1)  # no page is open: leave the database alone
