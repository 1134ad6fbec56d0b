"""Worker processes in slots: started by a command that ends with the worker, replaced when it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from em_blocks.runtime.launchers.base import (
    cluster_environment,
    last_words,
    lsf_options,
    slurm_options,
    worker_command,
    worker_environment,
)
from em_blocks.tasks.base import BlockwiseTask

SETTLE_S = 2.0
VACATE_S = 10.0
STOP_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 30.0
PR_SET_PDEATHSIG = 1


@dataclass
class _Slot:
    number: int
    log: Path
    process: subprocess.Popen | None = None
    generation: int = 0
    started: float = 0.0
    due: float = 0.0
    ended: float | None = None
    vacated: float | None = None
    fruitless: int = 0

    @property
    def name(self) -> str:
        """Of the worker that it holds, as this says in its hello."""
        return f"{self.number}.{self.generation}"


@dataclass
class Processes:
    """Workers of a task: on this machine, or each in a job of its own by srun or bsub -K.

    The exit code of such a command is never believed: srun says 0 when the node failed. What a
    worker did is in the database, and that it goes it says to the gateway.
    """

    task: BlockwiseTask
    session: Path
    logs: Path
    n_slots: int
    slots: list[_Slot] = field(init=False)

    def __post_init__(self):
        self.logs.mkdir(parents=True, exist_ok=True)
        self.slots = [_Slot(n, self.logs / f"worker-{n}.log") for n in range(self.n_slots)]

    def poll(self, gateway, roster) -> None:
        """Start what is missing, end what no longer counts."""
        vacated, now = roster.vacated(), time.monotonic()
        for slot in self.slots:
            if slot.name in vacated:
                slot.vacated = now
            if slot.process is None:
                if now >= slot.due:
                    self._start(slot, gateway.hosts_lost)
            elif slot.process.poll() is not None:
                self._close(slot, gateway, roster, now)
            elif slot.vacated is not None and now - slot.vacated > VACATE_S:
                self._kill(slot)

    def stop(self) -> None:
        """End all workers. They know that the run has ended: what is left after a while is killed."""
        deadline = time.monotonic() + STOP_S
        for slot in self.slots:
            if slot.process is not None and slot.vacated is not None:
                self._kill(slot)  # nobody told it that the run ended: it was lost before
        while self._alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        for slot in self._alive():
            self._kill(slot)
        for slot in self._alive():
            slot.process.wait()

    def last_words(self) -> str:
        """What the worker said at last that wrote last."""
        return last_words(self.logs)

    # -- one slot -----------------------------------------------------------------------

    def _alive(self) -> list[_Slot]:
        return [s for s in self.slots if s.process is not None and s.process.poll() is None]

    def _start(self, slot: _Slot, avoid: set[str]) -> None:
        slot.generation += 1
        slot.started, slot.vacated = time.monotonic(), None
        command = [*self._prefix(slot, avoid), *worker_command(self.task, self.session)]
        local = self.task.launcher == "local"
        environment = (
            worker_environment(self.n_slots, slot.number) if local
            else cluster_environment(self.task.cluster.cpus)
        )
        with open(slot.log, "ab") as log:
            slot.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**environment, "EM_BLOCKS_SLOT": slot.name},
                # Ctrl-C is for the scheduler; srun would cancel the job.
                start_new_session=not local, preexec_fn=None if local else _die_with_parent,
            )

    def _prefix(self, slot: _Slot, avoid: set[str]) -> list[str]:
        """What puts a worker on the cluster; away from hosts that lost one."""
        if self.task.launcher == "slurm":
            away = [f"--exclude={','.join(sorted(avoid))}"] if avoid else []
            return ["srun", f"--job-name={self._job(slot)}", *away, *slurm_options(self.task)]
        if self.task.launcher == "lsf":
            away = " && ".join(f"hname!='{host}'" for host in sorted(avoid))
            return ["bsub", "-K", "-J", self._job(slot), *(["-R", f"select[{away}]"] if away else []),
                    *lsf_options(self.task)]
        return []

    def _job(self, slot: _Slot) -> str:
        return f"{self.task.run}.{os.getpid()}.{slot.name}"

    def _close(self, slot: _Slot, gateway, roster, now: float) -> None:
        if slot.ended is None:
            slot.ended = now
        if now - slot.ended < SETTLE_S and slot.vacated is None and slot.name in gateway.slots:
            return  # its last words may be on the way
        # Its command has ended, and still it is connected: an orphan on a node that failed.
        gateway.dismiss(slot.name, f"the command that started it ended ({slot.process.returncode})")
        roster.ended(slot.name)
        slot.fruitless = slot.fruitless + 1 if roster.barren else 0
        slot.due = now + min(FIRST_PAUSE_S * 2**slot.fruitless, LONGEST_PAUSE_S)
        slot.process, slot.ended = None, None

    def _kill(self, slot: _Slot) -> None:
        if self.task.launcher == "slurm":
            _call(["scancel", "--signal=KILL", "--full", f"--name={self._job(slot)}"])
            _call(["scancel", f"--name={self._job(slot)}"])
        elif self.task.launcher == "lsf":
            _call(["bkill", "-J", self._job(slot)])
        slot.process.kill()


def _call(command: list[str]) -> None:
    # A job that has just ended is no error, and a controller that hangs must not hold up the run.
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20,
                       check=False)


def _die_with_parent() -> None:
    """A job that still waits in the queue must not start when its scheduler is long gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
