"""One start of a run: gateway, workers and watch, from the first block to the last."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from em_blocks.db.connect import ServerError
from em_blocks.db.runs import RunStore
from em_blocks.errors import DatabaseLostError
from em_blocks.runtime.launchers.base import Launcher, launcher_class
from em_blocks.runtime.protocol.job import Job, Session, session_path
from em_blocks.runtime.protocol.wire import new_secret
from em_blocks.runtime.scheduler.dispatch import Dispatcher, Work
from em_blocks.runtime.scheduler.gateway import Gateway
from em_blocks.runtime.scheduler.monitor import Monitor, Monitors
from em_blocks.runtime.scheduler.roster import Roster
from em_blocks.tasks.base import BlockwiseTask

log = logging.getLogger(__name__)

POLL_S = 0.1
DRAIN_S = 30.0

@dataclass(frozen=True)
class ScheduledStep:
    """The blocks of one run that are to be done, and what it takes to do them.

    Attributes
    ----------
    work : Work
    store : RunStore
    measured : dict or None
        Values measured once for the run.
    uri : str
        Address of the database, password included.
    epoch : int
        Of this start of the run.
    """

    work: Work
    store: RunStore
    measured: dict | None
    uri: str = field(repr=False)
    epoch: int

    @property
    def job(self) -> Job:
        """What workers are told."""
        return Job.of(self.work.task, measured=self.measured, uri=self.uri, epoch=self.epoch)


def schedule(steps: Sequence[ScheduledStep], console: Console) -> tuple[bool, str | None]:
    """Hand blocks to workers until none is left to try.

    Returns
    -------
    bool, str or None
        Whether any block was given up; why the run ended early, if it did.

    Raises
    ------
    KeyboardInterrupt
        After SIGINT, when the blocks in work have ended or were handed back.
    EmBlocksError
        If the scheduler cannot listen, or the cluster takes no workers.
    """
    task = steps[0].work.task
    dispatcher = Dispatcher([step.work for step in steps])
    roster = Roster([step.store for step in steps], [step.epoch for step in steps])
    secret, path = new_secret(), session_path(task)
    monitors = Monitors(
        [Monitor(step.store, step.epoch, step.work, progress, roster)
         for step, progress in zip(steps, dispatcher.progress, strict=True)],
        roster, console, outage_s=task.db_outage_s,
    )
    gateway = Gateway(
        dispatcher, roster, host=task.scheduler_host, port=task.scheduler_port, secret=secret,
        timeout_s=task.worker_timeout_s, on_event=monitors.tell,
    )
    with gateway:
        Session([step.job for step in steps], gateway.address, secret).save(path)
        launcher = _launcher(steps, path)
        monitors.last_words, monitors.how_workers_come = launcher.last_log_line, launcher.coming
        try:
            with monitors:
                _watch(gateway, launcher, roster, monitors, console)
        finally:
            path.unlink(missing_ok=True)
            gateway.close()
            launcher.stop()
            if not monitors.hopeless:
                write_last(roster)
    check_database_kept(monitors, task)
    return monitors.any_failed, monitors.reason


def check_database_kept(monitors: Monitors, task: BlockwiseTask) -> None:
    """Raise `DatabaseLostError` if the database stayed away for too long."""
    if monitors.hopeless:
        raise DatabaseLostError(
            f"Run {task.run!r} ends: {monitors.reason}. What the database has confirmed is safe; start "
            "the same command again when it is back."
        )


def write_last(roster: Roster) -> None:
    """Record what workers did since the last beat, and that they have left."""
    try:
        roster.flush()
    except ServerError as error:  # blocks are recorded by the workers; this is only for readers
        log.warning("the last state of the workers is not in the database: %s", error)


def _watch(
    gateway: Gateway, launcher: Launcher, roster: Roster, monitors: Monitors, console: Console
) -> None:
    try:
        while not gateway.finished.wait(POLL_S) and monitors.reason is None:
            launcher.poll(gateway, roster)
        gateway.check()
        if monitors.reason is not None and not monitors.hopeless:
            _drain(gateway, monitors)
    except KeyboardInterrupt:
        console.print(
            f"Stopping: {gateway.n_held} blocks in work are finished first, for {DRAIN_S:.0f} s at "
            "most. Once more, and they are handed back at once."
        )
        _drain(gateway, monitors)
        raise


def _drain(gateway: Gateway, monitors: Monitors) -> None:
    """Let workers finish what they have; a second Ctrl-C raises."""
    gateway.stop()
    deadline = time.monotonic() + DRAIN_S
    while not gateway.finished.wait(POLL_S) and time.monotonic() < deadline:
        if monitors.hopeless:
            return


def _launcher(steps: Sequence[ScheduledStep], session: Path) -> Launcher:
    """Return what starts the workers of all steps; no more than there are blocks for."""
    task = steps[0].work.task
    n = min(
        max(step.work.task.num_workers for step in steps),
        sum(int(step.work.todo.sum()) for step in steps),
    )
    return launcher_class(task)(task, session, task.home / "logs" / task.run, n)
