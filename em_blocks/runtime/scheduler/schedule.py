"""One start of a run by worker processes: gateway, launcher and watchdog."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from em_blocks.db.connect import ServerError
from em_blocks.errors import DatabaseLostError
from em_blocks.runtime.launchers.base import Launcher, launcher_class
from em_blocks.runtime.protocol.job import Session, session_path
from em_blocks.runtime.protocol.wire import new_secret
from em_blocks.runtime.scheduler.dispatch import Dispatcher
from em_blocks.runtime.scheduler.gateway import Gateway
from em_blocks.runtime.scheduler.scheduled_step import ScheduledStep
from em_blocks.runtime.scheduler.watchdog import Watchdog
from em_blocks.runtime.scheduler.worker_registry import WorkerRegistry
from em_blocks.tasks.base import BlockwiseTask

log = logging.getLogger(__name__)

POLL_S = 0.1
DRAIN_S = 30.0

def schedule(steps: Sequence[ScheduledStep], console: Console) -> tuple[bool, str | None]:
    """Have workers do blocks until none is left to try.

    Returns
    -------
    bool, str or None
        Whether any block failed permanently; why the run ended early, if it did.

    Raises
    ------
    KeyboardInterrupt
        After SIGINT, when the running blocks have ended or were requeued.
    EmBlocksError
        If the scheduler cannot listen, or the cluster takes no workers.
    """
    task = steps[0].work.task
    dispatcher = Dispatcher([step.work for step in steps])
    registry = WorkerRegistry([step.store for step in steps], [step.epoch for step in steps])
    secret, path = new_secret(), session_path(task)
    watchdog = Watchdog(steps, dispatcher.progress, registry, console, outage_s=task.db_outage_s)
    gateway = Gateway(
        dispatcher, registry, host=task.scheduler_host, port=task.scheduler_port, secret=secret,
        timeout_s=task.worker_timeout_s, on_event=watchdog.tell,
    )
    with gateway:
        Session([step.job for step in steps], gateway.address, secret).save(path)
        launcher = _launcher(steps, path)
        watchdog.last_log_line, watchdog.how_workers_come = launcher.last_log_line, launcher.coming
        try:
            with watchdog:
                _watch(gateway, launcher, registry, watchdog, console)
        finally:
            path.unlink(missing_ok=True)
            gateway.close()
            launcher.stop()
            if not watchdog.hopeless:
                write_last(registry)
    check_database_kept(watchdog, task)
    return watchdog.any_failed, watchdog.reason


def check_database_kept(watchdog: Watchdog, task: BlockwiseTask) -> None:
    """Raise `DatabaseLostError` if the database stayed unavailable for too long."""
    if watchdog.hopeless:
        raise DatabaseLostError(
            f"Run {task.run!r} ends: {watchdog.reason}. What the database has confirmed is safe; start "
            "the same command again when it is back."
        )


def write_last(registry: WorkerRegistry) -> None:
    """Record what workers did since the last beat, and that they have left."""
    try:
        registry.flush()
    except ServerError as error:  # blocks are recorded by the workers; this is only for readers
        log.warning("the last state of the workers is not in the database: %s", error)


def _watch(
    gateway: Gateway, launcher: Launcher, registry: WorkerRegistry, watchdog: Watchdog, console: Console
) -> None:
    try:
        while not gateway.finished.wait(POLL_S) and watchdog.reason is None:
            launcher.poll(gateway, registry)
        gateway.check()
        if watchdog.reason is not None and not watchdog.hopeless:
            _drain(gateway, watchdog)
    except KeyboardInterrupt:
        console.print(
            f"Stopping: waiting up to {DRAIN_S:.0f} s for {gateway.n_held} running blocks. Press Ctrl-C "
            "again to requeue them immediately."
        )
        _drain(gateway, watchdog)
        raise


def _drain(gateway: Gateway, watchdog: Watchdog) -> None:
    """Let workers finish what they have; a second Ctrl-C raises."""
    gateway.stop()
    deadline = time.monotonic() + DRAIN_S
    while not gateway.finished.wait(POLL_S) and time.monotonic() < deadline:
        if watchdog.hopeless:
            return


def _launcher(steps: Sequence[ScheduledStep], session: Path) -> Launcher:
    """Return what starts the workers of all steps; no more than there are blocks for."""
    task = steps[0].work.task
    n = min(
        max(step.work.task.num_workers for step in steps),
        sum(int(step.work.todo.sum()) for step in steps),
    )
    return launcher_class(task)(task, session, task.home / "logs" / task.run, n)
