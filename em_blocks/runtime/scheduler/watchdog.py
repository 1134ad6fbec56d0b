"""The thread that keeps the leases of a start, and ends it when it must end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from rich.console import Console

from em_blocks.db.connect import ServerError
from em_blocks.runtime.scheduler.circuit_breaker import CircuitBreaker
from em_blocks.runtime.scheduler.dispatch import StepProgress
from em_blocks.runtime.scheduler.progress_bars import ProgressBars
from em_blocks.runtime.scheduler.scheduled_step import ScheduledStep
from em_blocks.runtime.scheduler.worker_registry import WorkerRegistry

log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
SHOW_S = 0.5
REMIND_EVERY_S = 60.0


class Watchdog:
    """Keeps the leases of all steps, writes what workers do, and shows progress.

    Parameters
    ----------
    steps : sequence of ScheduledStep
    progress : sequence of StepProgress
        Of each step, kept up to date by the dispatcher.
    registry : WorkerRegistry
        Written to the database with every heartbeat.
    console : rich.console.Console
    outage_s : float
        How long the database may be unavailable.
    live : bool
        Whether to draw progress bars on a terminal.

    Attributes
    ----------
    reason : str or None
        Why the run must end, once it must.
    hopeless : bool
        Whether blocks that are running could not be recorded any more.
    """

    def __init__(
        self, steps: Sequence[ScheduledStep], progress: Sequence[StepProgress],
        registry: WorkerRegistry, console: Console, *, outage_s: float, live: bool = True,
    ):
        self._steps, self._progress, self._registry = steps, progress, registry
        self._console, self._outage_s = console, outage_s
        self._breakers = [CircuitBreaker(*both, registry) for both in zip(steps, progress, strict=True)]
        self._bars = ProgressBars(steps, progress, console, live=live)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self.reason: str | None = None
        self.hopeless = False
        self.last_log_line: Callable[[], str] = lambda: "nothing"
        self.how_workers_come = ""
        self._reminded = time.monotonic()

    def __enter__(self) -> Watchdog:
        self._bars.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *exc) -> None:
        self._stop.set()
        self._registry.urgent.set()
        self._thread.join()
        self._bars.__exit__(*exc)

    @property
    def any_failed(self) -> bool:
        """Whether any block failed permanently."""
        return any(progress.failed for progress in self._progress)

    def tell(self, event: str) -> None:
        """Print a line for the user."""
        self._console.print(event, markup=False, highlight=False)

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:  # the lease would run out, unnoticed
            log.exception("the watchdog of the run failed")
            failure = f"its watchdog failed with {type(error).__name__}: {error}"[:300]
            self.reason = self.reason or failure

    def _watch(self) -> None:
        unavailable_since, beat = None, 0.0
        while not self._stop.is_set():
            self._registry.urgent.wait(SHOW_S)
            self._remind()
            self._bars.show()
            now = time.monotonic()
            due = now - beat >= HEARTBEAT_S
            if not due and not self._registry.urgent.is_set():
                continue
            beat = now if due else beat
            try:
                self._beat(only_urgent=not due)
                unavailable_since = None
            except ServerError as error:
                if unavailable_since is None:
                    unavailable_since = now
                    self.tell(
                        "The database does not answer; workers hold what is done for "
                        f"{self._outage_s:.0f} s."
                    )
                self._unavailable(error, time.monotonic() - unavailable_since)
        self._bars.show()

    def _remind(self) -> None:
        if not self._registry.any_joined and time.monotonic() - self._reminded > REMIND_EVERY_S:
            self._reminded = time.monotonic()
            self.tell(f"No worker has come yet: {self.how_workers_come}.")

    def _beat(self, *, only_urgent: bool) -> None:
        self._registry.ask()
        self._registry.flush(only_urgent=only_urgent)
        for step, breaker in zip(self._steps, self._breakers, strict=True):
            if not step.store.heartbeat(step.epoch):
                self.reason = self.reason or "another scheduler took the run over"
            self.reason = self.reason or breaker.check(self.last_log_line)
        self._registry.answered()

    def _unavailable(self, error: Exception, seconds: float) -> None:
        if seconds > self._outage_s and self.reason is None:
            self.hopeless = True
            self.reason = f"the database was unavailable for {self._outage_s:.0f} s ({error})"[:300]
        self._stop.wait(SHOW_S)
