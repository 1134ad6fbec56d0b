"""Worker processes in slots: each started by a command that ends with the worker, then replaced."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from em_blocks.runtime.launchers.base import Connections, Launcher, Workers
from em_blocks.runtime.launchers.environment import cluster_environment, worker_command
from em_blocks.tasks.base import BlockwiseTask

SETTLE_S = 2.0
VACATE_S = 10.0
STOP_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 30.0
PR_SET_PDEATHSIG = 1


@dataclass
class Slot:
    """The place of one worker, and the process that holds it now."""

    number: int
    log: Path
    process: subprocess.Popen | None = None
    generation: int = 0
    due: float = 0.0
    ended: float | None = None
    vacated: float | None = None
    unproductive: int = 0

    @property
    def name(self) -> str:
        """Name of the worker that it holds, as this says in its hello."""
        return f"{self.number}.{self.generation}"


class SlotLauncher(Launcher):
    """Starts each worker by a command that ends with it; subclasses say by which.

    The exit code of such a command is never believed: srun says 0 when the node failed. Finished
    blocks are in the database, and a worker that leaves says so to the scheduler.
    """

    def __init__(self, task: BlockwiseTask, session: Path, logs: Path, n_workers: int):
        super().__init__(task, session, logs, n_workers)
        logs.mkdir(parents=True, exist_ok=True)
        self.slots = [Slot(n, logs / f"worker-{n}.log") for n in range(n_workers)]

    # -- what a subclass says ---------------------------------------------------------------

    def prefix(self, slot: Slot, avoid: set[str]) -> list[str]:
        """Return the words before a worker's command that put it in its place, away from hosts."""
        return []

    def environment(self, slot: Slot) -> dict[str, str]:
        """Return the environment of the worker in a slot, but for its name."""
        return cluster_environment(self.task.cluster.cpus)

    def cancel(self, slot: Slot) -> None:
        """End what the command of a slot has started elsewhere; the command is killed afterwards."""

    def job(self, slot: Slot) -> str:
        """Return a name for the job of a slot that no other job has."""
        return f"{self.task.run}.{os.getpid()}.{slot.name}"

    # -- one run ----------------------------------------------------------------------------

    def poll(self, connections: Connections, workers: Workers) -> None:
        vacated, now = workers.vacated(), time.monotonic()
        for slot in self.slots:
            if slot.name in vacated:
                slot.vacated = now
            if slot.process is None:
                if now >= slot.due:
                    self._start(slot, connections.hosts_lost)
            elif slot.process.poll() is not None:
                self._close(slot, connections, workers, now)
            elif slot.vacated is not None and now - slot.vacated > VACATE_S:
                self._kill(slot)

    def stop(self) -> None:
        """End all workers: those that still run after a while are killed."""
        deadline = time.monotonic() + STOP_S
        for slot in self.slots:
            if slot.process is not None and slot.vacated is not None:
                self._kill(slot)  # it was lost before, so it was not told that the run ended
        while self._alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        for slot in self._alive():
            self._kill(slot)
        for slot in self._alive():
            slot.process.wait()

    # -- one slot -----------------------------------------------------------------------

    def _alive(self) -> list[Slot]:
        return [s for s in self.slots if s.process is not None and s.process.poll() is None]

    def _start(self, slot: Slot, avoid: set[str]) -> None:
        slot.generation += 1
        slot.vacated = None
        command = [*self.prefix(slot, avoid), *worker_command(self.task, self.session)]
        with open(slot.log, "ab") as log:
            slot.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**self.environment(slot), "EM_BLOCKS_SLOT": slot.name},
                # Ctrl-C is for the scheduler; srun would cancel the job.
                start_new_session=not self.local, preexec_fn=None if self.local else _die_with_parent,
            )

    def _close(self, slot: Slot, connections: Connections, workers: Workers, now: float) -> None:
        if slot.ended is None:
            slot.ended = now
        if now - slot.ended < SETTLE_S and slot.vacated is None and slot.name in connections.slots:
            return  # its goodbye may be on the way
        # Its command has ended, and still it is connected: an orphan on a node that failed.
        code = slot.process.returncode
        connections.dismiss(slot.name, f"the command that started it ended ({code})")
        workers.ended(slot.name)
        slot.unproductive = slot.unproductive + 1 if workers.unproductive else 0
        slot.due = now + min(FIRST_PAUSE_S * 2**slot.unproductive, LONGEST_PAUSE_S)
        slot.process, slot.ended = None, None

    def _kill(self, slot: Slot) -> None:
        self.cancel(slot)
        slot.process.kill()


def call(command: list[str]) -> None:
    """Run a command of the cluster whose outcome does not matter."""
    # A job that has just ended is no error, and a controller that hangs must not hold up the run.
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20,
                       check=False)


def _die_with_parent() -> None:
    """End with the scheduler: a job that still waits in the queue must not start after that."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
