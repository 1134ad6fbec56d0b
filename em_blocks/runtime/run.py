"""One run of a blockwise task: from its config to an honest end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console

from em_blocks.db.connect import ServerError, connect, database_uri
from em_blocks.db.runs import DONE, FAILED, QUARANTINED, RunStore
from em_blocks.errors import EmBlocksError, RunFailedError
from em_blocks.runtime.claim import claim
from em_blocks.runtime.job import Job
from em_blocks.runtime.monitor import Monitor
from em_blocks.runtime.preflight import Checked, check_space, check_task
from em_blocks.runtime.report import RunReport, make_report, write_summary
from em_blocks.runtime.schedule import schedule
from em_blocks.tasks.base import BlockwiseTask


def run_blockwise(
    task: BlockwiseTask,
    *,
    overwrite: bool = False,
    adopt: bool = False,
    requeue: bool = False,
    console: Console | None = None,
) -> RunReport:
    """Do all blocks of `task` that the database does not know as done.

    Parameters
    ----------
    overwrite : bool
        Delete an earlier run of this name and its outputs first.
    adopt : bool
        Keep the blocks of an earlier run although its settings differ.
    requeue : bool
        Try failed and quarantined blocks again.

    Raises
    ------
    EmBlocksError
        If the run cannot or must not start; nothing was changed.
    """
    console = console or Console(stderr=True)
    checked = check_task(task)
    with database_uri(task.db_host, task.home) as uri, connect(uri) as client:
        store = RunStore(client, task.db_name, task.run)
        store.prepare()
        epoch = claim(store, task, checked, overwrite=overwrite, adopt=adopt)
        try:
            return _Session(task, checked, store, uri, epoch, console).run(requeue=requeue)
        except ServerError as error:
            raise RunFailedError(
                f"The database was lost during run {task.run!r}: {str(error)[:300]}. What it has "
                "confirmed is safe; run the same command again when it is back."
            ) from error


class _Session:
    """One start of a run, from the lease to its release."""

    def __init__(self, task, checked: Checked, store: RunStore, uri, epoch: int, console: Console):
        self.task, self.checked, self.store = task, checked, store
        self.uri, self.epoch, self.console = uri, epoch, console
        self.reason: str | None = None
        self.skipped = store.counts()[DONE]
        self.wall_s = 0.0

    def run(self, *, requeue: bool) -> RunReport:
        try:
            with sigterm_as_interrupt():
                if requeue:
                    self.store.requeue()
                self._compute(self._todo())
        except KeyboardInterrupt:
            self.reason = self.reason or "interrupted"
        except EmBlocksError:
            self.store.release(self.epoch, state="failed", summary={})
            raise
        return self._finish()

    def _todo(self) -> np.ndarray:
        """Bool over the grid: blocks that are neither masked, done, nor quarantined."""
        settled = self.store.mask(self.checked.grid.shape, DONE, QUARANTINED)
        todo = ~(settled | self.checked.masked)
        self.console.print(
            f"Run {self.task.run}: {self.checked.grid.n_blocks} blocks, {self.skipped} done before, "
            f"{int(self.checked.masked.sum())} masked, {int(todo.sum())} to do."
        )
        return todo

    def _compute(self, todo: np.ndarray) -> None:
        check_space(self.task, self.checked.n_voxels(todo))
        for output in self.task.output_specs():
            output.create(self.checked.grid, self.checked.fingerprint)
        measured = self._measured()
        if not todo.any():
            return
        job_path = self._logs / "job.json"
        job_path.parent.mkdir(parents=True, exist_ok=True)
        Job.of(self.task, measured=measured, uri=self.uri, epoch=self.epoch).save(job_path)
        self.store.update(session={"started": self.store.now()})
        start = time.monotonic()
        try:
            given_up = self._schedule(todo, job_path)
            lost = self._lost(todo)
            if lost.any() and self.reason is None and not given_up:
                # Workers died between a block and its commit: nobody's fault, so once more.
                self._schedule(lost, job_path)
                lost = self._lost(lost)
        finally:
            self.wall_s = time.monotonic() - start
            job_path.unlink(missing_ok=True)
        if self.reason is None:
            self._record_lost(lost)

    def _schedule(self, todo: np.ndarray, job_path: Path) -> bool:
        """Have the blocks done; whether the scheduler gave up on any."""
        monitor = Monitor(
            self.store, self.epoch, n_blocks=int(todo.sum()), n_voxels=self.checked.n_voxels(todo),
            num_workers=self.task.num_workers, console=self.console,
        )
        try:
            with monitor:
                schedule(self.task, self.checked.grid, todo, job_path, self._logs, monitor)
        except KeyboardInterrupt:
            self.reason = monitor.reason or "interrupted"
            if monitor.reason is not None:
                # A cause that hits every block is no fault of the blocks.
                self.store.requeue()
        except RuntimeError as error:  # daisy gave the task up
            self.reason = f"the scheduler gave up: {error}"[:2000]
        return monitor.any_failed

    def _measured(self) -> dict:
        """Values measured once per run; kept, so that a resumed run uses the same."""
        document = self.store.load()
        if document.get("measured") is None:
            measured = self.task.measure()
            self.store.update(measured=measured)
            return measured
        return document["measured"]

    def _lost(self, todo: np.ndarray) -> np.ndarray:
        """Blocks that died with their worker, or whose commit never arrived."""
        return todo & ~self.store.mask(self.checked.grid.shape, DONE, FAILED, QUARANTINED)

    def _record_lost(self, lost: np.ndarray) -> None:
        """Give lost blocks a record: nobody else can."""
        for index in np.argwhere(lost):
            self.store.mark_failed(
                self.checked.grid, tuple(index), self.epoch,
                {"type": "WorkerLost", "stage": None, "traceback": None,
                 "message": "the worker died or timed out, or its commit did not reach the database; "
                 f"see {self._logs}"},
            )

    @property
    def _logs(self) -> Path:
        return self.task.home / "logs" / self.task.run

    def _finish(self) -> RunReport:
        self.store.update(
            **{"session.ended": self.store.now(), "n_masked": int(self.checked.masked.sum())}
        )
        report = make_report(
            self.task, self.checked, self.store, skipped=self.skipped, wall_s=self.wall_s,
            reason=self.reason, logs=self._logs,
        )
        self.store.release(self.epoch, state=report.state, summary=asdict(report))
        write_summary(self.task.home / "summary.json", report)
        return report


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the run in order, as Ctrl-C does."""

    def interrupt(*_):
        os.kill(os.getpid(), signal.SIGINT)

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
