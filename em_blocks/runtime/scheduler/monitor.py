"""What the scheduler watches while workers work: heartbeat, progress, and whether to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from em_blocks.db.connect import ServerError
from em_blocks.db.runs import RunStore
from em_blocks.runtime.scheduler import dispatch
from em_blocks.runtime.scheduler.roster import Roster

log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
SHOW_S = 0.5
LOG_EVERY_S = 15.0
ASK_EVERY_S = 60.0
MIN_ALIKE = 3
RESERVE_BYTES = 64e6


class Monitors:
    """Watches all steps of a start from a thread of its own, and shows them.

    Parameters
    ----------
    monitors : list of Monitor
        One for each step.
    roster : Roster
        Written to the database with every beat.
    console : rich.console.Console
    outage_s : float
        How long the database may be away.

    Attributes
    ----------
    reason : str or None
        Why the run must end, once it must.
    hopeless : bool
        Whether nothing that is in work could still be recorded.
    """

    def __init__(
        self, monitors: list[Monitor], roster: Roster, console: Console, *, outage_s: float,
        live: bool = True,
    ):
        self._monitors, self._roster, self._console = monitors, roster, console
        self._outage_s = outage_s
        self._progress = _bars(console, live and console.is_terminal)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self.reason: str | None = None
        self.hopeless = False
        self.last_words: Callable[[], str] = lambda: "nothing"
        self.how_workers_come = ""
        self._asked = time.monotonic()

    def __enter__(self) -> Monitors:
        self._progress.start()
        for monitor in self._monitors:
            monitor.start(self._progress, self._console)
        self._thread.start()
        return self

    def __exit__(self, *exc) -> None:
        self._stop.set()
        self._roster.urgent.set()
        self._thread.join()
        self._progress.stop()

    @property
    def any_failed(self) -> bool:
        """Whether any block was given up."""
        return any(monitor.progress.failed for monitor in self._monitors)

    def tell(self, event: str) -> None:
        """Tell the user."""
        self._console.print(event, markup=False, highlight=False)

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:  # nobody would keep the lease, and nobody know
            log.exception("the watch of the run failed")
            self.reason = self.reason or f"its watch failed with {type(error).__name__}: {error}"[:300]

    def _watch(self) -> None:
        away_since, beat = None, 0.0
        while not self._stop.is_set():
            self._roster.urgent.wait(SHOW_S)
            self._ask_for_workers()
            for monitor in self._monitors:
                monitor.show()
            now = time.monotonic()
            due = now - beat >= HEARTBEAT_S
            if not due and not self._roster.urgent.is_set():
                continue
            beat = now if due else beat
            try:
                self._beat(only_urgent=not due)
                away_since = None
            except ServerError as error:
                if away_since is None:
                    away_since = now
                    self._tell_away()
                self._away(error, time.monotonic() - away_since)
        for monitor in self._monitors:
            monitor.show()

    def _ask_for_workers(self) -> None:
        if not self._roster.anybody and time.monotonic() - self._asked > ASK_EVERY_S:
            self._asked = time.monotonic()
            self.tell(f"No worker has come yet: {self.how_workers_come}.")

    def _beat(self, *, only_urgent: bool) -> None:
        self._roster.ask()
        self._roster.flush(only_urgent=only_urgent)
        for monitor in self._monitors:
            self.reason = self.reason or monitor.check(self.last_words)
        self._roster.answered()

    def _tell_away(self) -> None:
        self.tell(
            f"The database does not answer; workers hold what is done for {self._outage_s:.0f} s."
        )

    def _away(self, error: Exception, seconds: float) -> None:
        if seconds > self._outage_s and self.reason is None:
            self.hopeless = True
            self.reason = f"the database was away for {self._outage_s:.0f} s ({error})"[:300]
        self._stop.wait(SHOW_S)


class Monitor:
    """Watches one step of a run, and keeps its lease alive.

    Parameters
    ----------
    store : RunStore
    epoch : int
    work : dispatch.Work
    progress : dispatch.Progress
        Kept up to date by the dispatcher.
    roster : Roster
    """

    def __init__(
        self, store: RunStore, epoch: int, work: dispatch.Work, progress: dispatch.Progress,
        roster: Roster,
    ):
        self._store, self._epoch, self._roster = store, epoch, roster
        self._n_blocks, self._num_workers = int(work.todo.sum()), work.task.num_workers
        self._voxels_per_block = work.n_voxels / max(1, self._n_blocks)
        self._folders = [Path(o.folder) for o in work.task.output_specs() if o.folder is not None]
        self._start = self._logged = time.monotonic()
        self._bars = self._row = self._console = None
        self.progress = progress

    def start(self, bars: Progress, console: Console) -> None:
        """Show the step in a row of `bars`."""
        self._bars, self._console = bars, console
        self._row = bars.add_task(self._store.run, total=self._n_blocks, rate=0.0, failed=0)

    def check(self, last_words: Callable[[], str]) -> str | None:
        """Keep the lease; why the run must end, if it must.

        That is if the lease is lost, the disk is full, or the first blocks all fail in the same way.
        """
        if not self._store.heartbeat(self._epoch):
            return "another scheduler took the run over"
        return self._full_disk() or (
            self._systematic_failure(last_words) if self.progress.done == 0 else None
        )

    def _full_disk(self) -> str | None:
        for folder in self._folders:
            if folder.exists() and (free := psutil.disk_usage(str(folder)).free) < RESERVE_BYTES:
                return (
                    f"the disk of {folder} is full ({free / 1e6:.0f} MB are free, "
                    f"{RESERVE_BYTES / 1e6:.0f} MB are kept for the records of what is done); free "
                    "some space and start the same command again"
                )
        return None

    def _systematic_failure(self, last_words: Callable[[], str]) -> str | None:
        """Why no block will ever succeed, judged by the first ones."""
        groups = self._store.failure_groups(self._epoch)
        if len(groups) == 1:
            (group,) = groups
            error = f"{group['type']} in stage {group['stage']}: {group['message']}"
            if group["starts"] >= MIN_ALIKE:
                return f"workers cannot start, with {error}"
            # A damaged chunk fails all blocks that read it; that is no reason to stop the others.
            alike = 100 if group["type"] == "VolumeError" else max(MIN_ALIKE, 2 * self._num_workers)
            if alike <= group["blocks"] < self._n_blocks:
                return f"the first {group['blocks']} blocks all failed with {error}"
        enough = 5 * self._num_workers if self._roster.anybody else self._num_workers
        if self._roster.unproductive >= 5 + enough:
            return f"workers die before they finish a block: {last_words()}"
        return None

    # -- progress -----------------------------------------------------------------------

    def show(self) -> None:
        """Bring the row up to date; without a terminal, print a line now and then."""
        finished, failed = self.progress.done, self.progress.failed
        seconds = time.monotonic() - self._start
        rate = finished * self._voxels_per_block / 1e6 / max(seconds, 1e-6)
        self._bars.update(self._row, completed=finished + failed, rate=rate, failed=failed)
        due = time.monotonic() - self._logged > LOG_EVERY_S and 0 < finished < self._n_blocks
        if due and self._bars.disable:
            self._logged = time.monotonic()
            left = seconds * (self._n_blocks - finished) / finished
            self._console.print(
                f"{self._store.run}: {finished} of {self._n_blocks} blocks, {rate:.3g} Mvoxel/s, "
                f"{failed} failed, about {left:.0f} s left"
            )


def _bars(console: Console, live: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
        TextColumn("{task.completed}/{task.total}"), TextColumn("{task.fields[rate]:.3g} Mvoxel/s"),
        TextColumn("{task.fields[failed]} failed"), TimeRemainingColumn(),
        console=console, disable=not live,
    )
