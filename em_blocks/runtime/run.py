"""One run of a blockwise task: from its config to an honest end."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console

from em_blocks import __version__
from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import DONE, FAILED, QUARANTINED, RunStore, grid_document
from em_blocks.errors import (
    EXIT_FAILED_BLOCKS,
    EXIT_OK,
    FingerprintMismatchError,
    LeaseHeldError,
    RefusedError,
)
from em_blocks.runtime.job import Job
from em_blocks.runtime.launch import worker_launcher
from em_blocks.runtime.monitor import Monitor
from em_blocks.runtime.preflight import Checked, check_space, check_task
from em_blocks.tasks.base import BlockwiseTask, differing_fields
from em_blocks.volumes import Volume
from em_blocks.volumes.formats import detect
from em_blocks.volumes.store import delete_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunReport:
    """How a run ended, as the database says; stored as summary.json.

    Attributes
    ----------
    blocks : dict
        total, done, skipped (done before), computed (now), masked, failed (not done, for
        whatever reason), quarantined.
    seconds : dict
        Seconds per stage, summed over all done blocks and workers.
    mvox_s : float
        Voxels of the blocks computed now per second of wall time, in millions.
    """

    run: str
    task: str
    state: str
    reason: str | None
    blocks: dict[str, int]
    seconds: dict[str, float]
    counts: dict[str, int]
    wall_s: float
    mvox_s: float
    worst_blocks: list[dict]
    failures: list[dict]
    outputs: dict[str, str]
    logs: str

    @property
    def ok(self) -> bool:
        """Every block that the mask leaves is done in the database."""
        return self.state == "done"

    @property
    def exit_code(self) -> int:
        return EXIT_OK if self.ok else EXIT_FAILED_BLOCKS


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
        return _Session(task, checked, store, uri, epoch, console).run(requeue=requeue)


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
        except BaseException:
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
        n_todo = int(todo.sum())
        n_voxels = _n_voxels(self.checked, todo)
        check_space(self.task, n_voxels)
        for output in self.task.output_specs():
            output.create(self.checked.grid, self.checked.fingerprint)
        measured = self._measured()
        if n_todo == 0:
            return
        job_path = self._logs / "job.json"
        job_path.parent.mkdir(parents=True, exist_ok=True)
        Job.of(self.task, measured=measured, uri=self.uri, epoch=self.epoch).save(job_path)
        start = time.monotonic()
        try:
            self._schedule(todo, job_path, n_todo, n_voxels)
        finally:
            self.wall_s = time.monotonic() - start
            job_path.unlink(missing_ok=True)
        if self.reason is None:
            self._record_lost(todo)

    def _schedule(self, todo: np.ndarray, job_path: Path, n_todo: int, n_voxels: int) -> None:
        monitor = Monitor(
            self.store, self.epoch, n_blocks=n_todo, n_voxels=n_voxels,
            num_workers=self.task.num_workers, console=self.console,
        )
        self.store.update(session={"started": self.store.now()})
        try:
            with monitor:
                schedule(self.task, self.checked, todo, job_path, self._logs, monitor)
        except KeyboardInterrupt:
            self.reason = monitor.reason or "interrupted"
            if monitor.reason is not None:
                # A cause that hits every block is no fault of the blocks.
                self.store.requeue()
        except RuntimeError as error:  # daisy gave the task up
            self.reason = f"the scheduler gave up: {error}"[:2000]

    def _measured(self) -> dict:
        """Values measured once per run; kept, so that a resumed run uses the same."""
        document = self.store.load()
        if document.get("measured") is None:
            measured = self.task.measure()
            self.store.update(measured=measured)
            return measured
        return document["measured"]

    def _record_lost(self, todo: np.ndarray) -> None:
        """Give blocks a record that died with their worker, or whose commit never arrived."""
        known = self.store.mask(self.checked.grid.shape, DONE, FAILED, QUARANTINED)
        for index in np.argwhere(todo & ~known):
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
        report = self._report()
        self.store.release(self.epoch, state=report.state, summary=asdict(report))
        write_summary(self.task.home / "summary.json", report)
        return report

    def _report(self) -> RunReport:
        store, grid, masked = self.store, self.checked.grid, int(self.checked.masked.sum())
        counts, totals = store.counts(), store.totals()
        store.update(**{"session.ended": store.now(), "n_masked": masked})
        missing = grid.n_blocks - masked - counts[DONE]
        state = "done" if missing == 0 else "failed"
        if self.reason is not None and missing:
            state = "stopped"
        computed = counts[DONE] - self.skipped
        voxels = totals["voxels"] * computed / max(1, counts[DONE])
        return RunReport(
            run=self.task.run, task=self.task.kind, state=state, reason=self.reason,
            blocks={"total": grid.n_blocks, "done": counts[DONE],
                    "skipped": counts[DONE] - computed, "computed": computed, "masked": masked,
                    "failed": missing - counts[QUARANTINED], "quarantined": counts[QUARANTINED]},
            seconds=totals["seconds"], counts=totals["counts"], wall_s=self.wall_s,
            mvox_s=voxels / 1e6 / self.wall_s if self.wall_s else 0.0,
            worst_blocks=store.slowest(5), failures=store.failures(20),
            outputs={o.name: o.path for o in self.task.output_specs()}, logs=str(self._logs),
        )


def schedule(
    task: BlockwiseTask, checked: Checked, todo: np.ndarray, job_path: Path, logs: Path,
    observer,
) -> None:
    """Hand the blocks in `todo` to workers by daisy, until none is left to try."""
    import daisy.v2 as daisy

    daisy_logging().set_log_basedir(str(logs))
    origin, grid = daisy.Coordinate(0, 0, 0), checked.grid
    block = daisy.Roi(origin, grid.block_shape)
    daisy.Server().run_blockwise(
        daisy.Task(
            task_id=task.run,
            total_roi=daisy.Roi(origin, grid.volume_shape),
            read_roi=block,
            write_roi=block,
            process_function=worker_launcher(task, job_path),
            read_write_conflict=False,
            fit="shrink",
            max_workers=task.num_workers,
            max_retries=task.max_retries,
            # A worker holds several blocks, which wait for each other.
            timeout=task.block_timeout_s * task.concurrent_blocks,
            # Every exit of a worker counts, clean ones too; the monitor knows better when to stop.
            max_worker_restarts=1_000_000,
            skip_mask=~todo,
        ),
        progress=observer,
        host=task.scheduler_host,
        block_tracking=False,
        summary=False,
    )


def daisy_logging():
    """daisy's own log settings; its package attribute of that name is shadowed in v2."""
    import daisy.logging

    return daisy.logging


# -- claiming a run -----------------------------------------------------------------------


def claim(
    store: RunStore, task: BlockwiseTask, checked: Checked, *, overwrite: bool, adopt: bool
) -> int:
    """Become the scheduler of this run, or refuse; returns the epoch.

    Raises
    ------
    FingerprintMismatchError
        If a run of this name was made with other settings.
    LeaseHeldError
        If another scheduler works on it.
    RefusedError
        If outputs exist that no run of this database made, or are gone.
    """
    existing = store.load()
    if existing is not None and not overwrite:
        _check_same(existing, task, checked, adopt=adopt)
    if not overwrite:
        _check_outputs(existing, store, task, checked)
    if existing is None:
        check_space(task, _n_voxels(checked, ~checked.masked))
        _create(store, task, checked, previous_epoch=0)
    epoch = _take_lease(store, task)
    if overwrite:
        _remove_outputs(task)
        store.remove()
        _create(store, task, checked, previous_epoch=epoch)
        epoch = _take_lease(store, task)
    elif existing is not None and adopt:
        store.update(fingerprint=checked.fingerprint, identity=checked.identity,
                     config=task.stored_config(), outputs=_locations(task))
    return epoch


def _check_same(existing: dict, task: BlockwiseTask, checked: Checked, *, adopt: bool) -> None:
    lines = differing_fields(existing["identity"], checked.identity)
    if existing["fingerprint"] == checked.fingerprint:
        lines = []
    lines += differing_fields(existing["outputs"], _locations(task), "output.")
    grid_changed = existing["grid"] != grid_document(checked.grid)
    if lines and (grid_changed or not adopt):
        ways = "--overwrite deletes the old result and starts again, and --set run=NAME --set output=PATH starts another run beside it"
        if not grid_changed:
            ways += "; --adopt keeps the finished blocks and computes only the missing ones in the new way"
        raise FingerprintMismatchError(
            f"Run {task.run!r} exists with other settings: {'; '.join(lines)}. Going on would mix two "
            f"results in one volume. Decide: {ways}."
        )


def _check_outputs(
    existing: dict | None, store: RunStore, task: BlockwiseTask, checked: Checked
) -> None:
    for output in task.output_specs():
        present = detect(output.path) is not None
        if present and existing is None:
            if Volume.open(output.path).attributes.get("fingerprint") != checked.fingerprint:
                raise RefusedError(
                    f"{output.path} exists, but no run {task.run!r} in the database made it. It is not "
                    "overwritten by accident: choose another output, or use --overwrite to delete it "
                    "and start anew."
                )
        if not present and existing is not None and store.counts()[DONE]:
            raise RefusedError(
                f"The database has {store.counts()[DONE]} done blocks of run {task.run!r}, but their "
                f"output {output.path} is gone. Restore it, or use --overwrite to compute everything "
                "again."
            )


def _create(store: RunStore, task: BlockwiseTask, checked: Checked, previous_epoch: int) -> None:
    store.create(
        {
            "task": task.kind,
            "fingerprint": checked.fingerprint,
            "identity": checked.identity,
            "config": task.stored_config(),
            "outputs": _locations(task),
            "grid": grid_document(checked.grid),
            "n_blocks": checked.grid.n_blocks,
            "n_masked": int(checked.masked.sum()),
            "measured": None,
            "versions": versions(),
        },
        epoch=previous_epoch,
    )


def _take_lease(store: RunStore, task: BlockwiseTask) -> int:
    lease = store.load()["lease"]
    dead = lease["owner"] if lease["owner"] and not owner_lives(lease["owner"]) else None
    epoch = store.take_lease(this_owner(), from_owner=dead)
    if epoch is None:
        lease = store.load()["lease"]
        age = (store.now() - lease["heartbeat"]).total_seconds()
        raise LeaseHeldError(
            f"Run {task.run!r} is being worked on by {lease['owner']} (host:pid:start), whose last "
            f"heartbeat was {age:.0f} s ago. Two schedulers would do every block twice. Wait for it, or "
            "stop it; if it died on another host, it is taken over 30 s after its last heartbeat."
        )
    return epoch


def this_owner() -> str:
    """``host:pid:start`` of this process; the start time tells a reused pid apart."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def owner_lives(owner: str) -> bool:
    """Whether the process of a lease may live; on other hosts only the heartbeat can tell."""
    host, pid, started = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == started
    except psutil.NoSuchProcess:
        return False


def _locations(task: BlockwiseTask) -> dict[str, str]:
    """Output paths, relative to the run folder where they are in it: folders get moved."""
    home = str(task.home) + "/"
    return {o.name: o.path.removeprefix(home) for o in task.output_specs()}


def _remove_outputs(task: BlockwiseTask) -> None:
    for output in task.output_specs():
        if detect(output.path) is not None:
            delete_folder(output.path)


def _n_voxels(checked: Checked, todo: np.ndarray) -> int:
    """Voxels of the blocks marked in `todo`."""
    sizes = [
        np.minimum(np.arange(1, n + 1) * b, v) - np.arange(n) * b
        for n, b, v in zip(
            checked.grid.shape, checked.grid.block_shape, checked.grid.volume_shape, strict=True
        )
    ]
    return int(np.einsum("zyx,z,y,x->", todo.astype(np.int64), *(s.astype(np.int64) for s in sizes)))


def versions() -> dict[str, str]:
    """Versions of what could change a result."""
    packages = ("daisy", "tensorstore", "numpy", "torch", "pymongo")
    return {
        "em_blocks": __version__,
        "python": sys.version.split()[0],
        **{p: version(p) for p in packages},
    }


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


def write_summary(path: Path, report: RunReport) -> None:
    """Store the report beside the output, in one piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".json.new")
    temporary.write_text(json.dumps(asdict(report), indent=2, default=str) + "\n")
    temporary.replace(path)
