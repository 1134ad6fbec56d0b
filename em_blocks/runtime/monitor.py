"""What the scheduler watches while workers work: heartbeat, progress, and whether to stop."""

from __future__ import annotations

import os
import signal
import threading
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from em_blocks.db.connect import OUTAGE_S, ServerError
from em_blocks.db.runs import RunStore

HEARTBEAT_S = 2.0
LOG_EVERY_S = 15.0
MIN_ALIKE = 3


class Monitors:
    """Observer of a daisy run of several tasks: one `Monitor` for each, one progress display.

    Parameters
    ----------
    monitors : list of Monitor
    console : rich.console.Console
    """

    def __init__(self, monitors: list[Monitor], console: Console):
        self._monitors = monitors
        self._progress = _bars(console)

    def __enter__(self) -> Monitors:
        self._progress.start()
        for monitor in self._monitors:
            monitor.start(self._progress)
        return self

    def __exit__(self, *exc) -> None:
        for monitor in self._monitors:
            monitor.stop()
        self._progress.stop()

    @property
    def reason(self) -> str | None:
        """Why a monitor stopped the run."""
        return next((m.reason for m in self._monitors if m.reason is not None), None)

    @property
    def any_failed(self) -> bool:
        """Whether daisy gave up on a block."""
        return any(monitor.any_failed for monitor in self._monitors)

    # -- called by daisy --------------------------------------------------------------

    def on_start(self, states) -> None:
        self.on_progress(states)

    def on_progress(self, states) -> None:
        for monitor in self._monitors:
            monitor.update(states)

    def on_finish(self, states) -> None:
        self.on_progress(states)


class Monitor:
    """Watches one task of a run, with a thread that keeps the lease alive.

    Stops the run (by SIGINT to this process, which daisy turns into an orderly end) if the
    lease is lost, the database stays away, or the first blocks all fail in the same way.

    Parameters
    ----------
    store : RunStore
    epoch : int
    name : str
        Of the run.
    n_blocks : int
        Blocks to do, of `n_voxels` voxels in all.
    num_workers : int
    console : rich.console.Console
    """

    def __init__(
        self, store: RunStore, epoch: int, *, name: str, n_blocks: int, n_voxels: int,
        num_workers: int, console: Console,
    ):
        self._store, self._epoch, self._name = store, epoch, name
        self._n_blocks, self._voxels_per_block = n_blocks, n_voxels / max(1, n_blocks)
        self._num_workers, self._console = num_workers, console
        self._stop = threading.Event()
        self._states = None
        self._start = self._logged = time.monotonic()
        self._progress = self._row = None
        self._thread = threading.Thread(target=self._watch, name="monitor", daemon=True)
        self.reason: str | None = None
        self.ended: float | None = None

    def start(self, progress: Progress) -> None:
        """Begin to watch, and show it in a row of `progress`."""
        self._progress = progress
        self._row = progress.add_task(self._name, total=self._n_blocks, rate=0.0, failed=0)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stop.set()
        self._thread.join()

    @property
    def any_failed(self) -> bool:
        """Whether daisy gave up on a block."""
        return self._states is not None and self._states.failed_count > 0

    def update(self, states) -> None:
        """Take over what daisy says about all tasks."""
        self._states = states[self._name]
        if self.ended is None and self._finished() == self._n_blocks:
            self.ended = time.monotonic()

    # -- the watching thread ------------------------------------------------------------

    def _watch(self) -> None:
        away_since = None
        while not self._stop.wait(0.5 if self._console.is_terminal else HEARTBEAT_S):
            self._show()
            try:
                self._check()
                away_since = None
            except ServerError as error:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > OUTAGE_S:
                    self._interrupt(f"the database was away for {OUTAGE_S:.0f} s ({error})"[:300])
        self._show()

    def _check(self) -> None:
        if not self._store.heartbeat(self._epoch):
            self._interrupt("another scheduler took the run over")
        elif self._finished() == 0 and (reason := self._systematic_failure()):
            self._interrupt(reason)

    def _interrupt(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            os.kill(os.getpid(), signal.SIGINT)

    def _finished(self) -> int:
        state = self._states
        return state.completed_count - state.skipped_count if state is not None else 0

    def _systematic_failure(self) -> str | None:
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
        deaths = self._states.worker_failure_count if self._states is not None else 0
        if deaths >= 5 + 5 * self._num_workers:
            last = (self._states.last_worker_error or "").strip()[-500:]
            return f"workers die before they finish a block: {last}"
        return None

    # -- progress -----------------------------------------------------------------------

    def _show(self) -> None:
        finished = self._finished()
        seconds = time.monotonic() - self._start
        rate = finished * self._voxels_per_block / 1e6 / max(seconds, 1e-6)
        failed = self._states.failed_count if self._states is not None else 0
        self._progress.update(self._row, completed=finished, rate=rate, failed=failed)
        due = time.monotonic() - self._logged > LOG_EVERY_S and 0 < finished < self._n_blocks
        if due and not self._console.is_terminal:
            self._logged = time.monotonic()
            left = seconds * (self._n_blocks - finished) / finished
            self._console.print(
                f"{self._name}: {finished} of {self._n_blocks} blocks, {rate:.3g} Mvoxel/s, {failed} "
                f"failed, about {left:.0f} s left"
            )


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
        TextColumn("{task.completed}/{task.total}"), TextColumn("{task.fields[rate]:.3g} Mvoxel/s"),
        TextColumn("{task.fields[failed]} failed"), TimeRemainingColumn(),
        console=console, disable=not console.is_terminal,
    )
