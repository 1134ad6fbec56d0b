"""The contract of launchers: what starts the worker processes of a run."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol
from urllib.parse import urlsplit

from em_blocks.db.connect import expand_uri
from em_blocks.errors import ConfigError
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.cluster import LAUNCHERS

TAIL = 20_000


class Connections(Protocol):
    """The workers that are connected to the scheduler."""

    @property
    def slots(self) -> set[str]:
        """Slots whose workers are connected."""

    @property
    def hosts_lost(self) -> set[str]:
        """Hosts that the next worker should not be put on."""

    def dismiss(self, slot: str, reason: str) -> None:
        """End the worker of a slot whose process has ended, or is about to."""


class Workers(Protocol):
    """Events of the workers of a run."""

    @property
    def unproductive(self) -> int:
        """Workers in a row that were lost before they finished a block."""

    def vacated(self) -> set[str]:
        """Return the slots whose workers left since the last call."""

    def ended(self, slot: str) -> None:
        """Note that the process of a slot has ended."""


class Launcher(ABC):
    """Starts the worker processes of a run, and replaces those that end.

    A launcher is one file: a subclass that is registered under the name that configs give as
    ``launcher``, here or by an entry point of the group ``em_blocks.launchers``. It starts
    ``environment.worker_command(task, session)`` with a name of its own in ``EM_BLOCKS_SLOT``, by which
    scheduler and launcher refer to that worker.

    Parameters
    ----------
    task : BlockwiseTask
        The first step of the run, whose settings count for all.
    session : Path
        The session file, which workers read.
    logs : Path
        Folder of the workers' logs, ``worker-*.log``.
    n_workers : int
        Workers to have at a time.
    """

    local: ClassVar[bool] = False
    """Whether workers run on this machine, so that measurements in this process hold for them."""

    commands: ClassVar[tuple[str, ...]] = ()
    """Programs that must be on PATH."""

    reached: ClassVar[bool] = False
    """Whether the scheduler starts workers on other machines, which must reach it and the database."""

    arrays: ClassVar[bool] = False
    """Whether ``cluster.array`` is supported."""

    coming: ClassVar[str]
    """Hint for a user who waits for the first worker; follows a colon."""

    def __init__(self, task: BlockwiseTask, session: Path, logs: Path, n_workers: int):
        self.task, self.session, self.logs, self.n_workers = task, session, logs, n_workers

    @abstractmethod
    def poll(self, connections: Connections, workers: Workers) -> None:
        """Start the workers that are missing, end those that no longer count; called every 0.1 s."""

    @abstractmethod
    def stop(self) -> None:
        """End all workers. They have been told that the run ended."""

    def last_log_line(self) -> str:
        """Return the last line of the log that was written last."""
        written = sorted(self.logs.glob("worker-*.log"), key=lambda path: path.stat().st_mtime)
        if not written:
            return "nothing"
        lines = written[-1].read_text(errors="replace")[-TAIL:].strip().splitlines()
        # Slurm writes the last line, which says that the worker ended.
        own = [line for line in lines if not line.startswith(("srun:", "slurmstepd"))]
        return (own or lines or ["nothing"])[-1][:500]

    @classmethod
    def chosen(cls, task: BlockwiseTask) -> type[Launcher]:
        """Return the class that launches a task: this one, or a variant that its config asks for."""
        return cls

    @classmethod
    def check(cls, task: BlockwiseTask) -> None:
        """Raise `ConfigError` if workers could not be started, or not reach database or scheduler."""
        missing = [name for name in cls.commands if shutil.which(name) is None]
        if missing:
            raise ConfigError(
                f"The launcher {task.launcher!r} starts workers by {missing[0]!r}, which is not on PATH "
                'here. Run this command on a submit host of the cluster, or use the launcher "local".'
            )
        if cls.reached and task.cluster.array and not cls.arrays:
            raise ConfigError(
                f"'cluster.array' is for Slurm; workers of {task.launcher!r} are started one by one."
            )
        if cls.reached:
            check_reachable(task)

    @classmethod
    def directives(cls, task: BlockwiseTask, logs: Path, n: int, name: str) -> Sequence[str]:
        """Return the lines of a job script that ask the cluster for `n` workers; none without one."""
        return ()


def launcher_class(task: BlockwiseTask) -> type[Launcher]:
    """Return the class that starts the workers of a task. Raises `ConfigError` if it is broken."""
    return LAUNCHERS.get(task.launcher).chosen(task)


def check_launcher(task: BlockwiseTask) -> None:
    """Raise `ConfigError` if the workers of a task could not be started, or not reach the scheduler."""
    if task.scheduler_host in ("0.0.0.0", "::", ""):
        raise ConfigError(
            f"'scheduler_host' is {task.scheduler_host!r}, which would listen on every interface and is "
            "no address that a worker could connect to. Set it to one address of this machine."
        )
    launcher_class(task).check(task)


def check_reachable(task: BlockwiseTask) -> None:
    """Raise `ConfigError` if database or scheduler have addresses of this machine only."""
    if task.db_host is None or _is_loopback(urlsplit(expand_uri(task.db_host)).hostname):
        problem = "not set" if task.db_host is None else "an address of this machine only"
        raise ConfigError(
            f"The launcher {task.launcher!r} starts workers on other machines, which must reach the "
            f"database, but 'db_host' is {problem}. "
            "Every finished block is recorded there; set 'db_host' to a MongoDB server that the nodes "
            "can reach."
        )
    if _is_loopback(task.scheduler_host):
        raise ConfigError(
            f"The launcher {task.launcher!r} starts workers on other machines, which must reach the "
            f"scheduler, but 'scheduler_host' is {task.scheduler_host}. Set it to an address of this "
            "machine in the cluster's network."
        )


def _is_loopback(host: str | None) -> bool:
    return host is None or host == "localhost" or host.startswith("127.") or host == "::1"
