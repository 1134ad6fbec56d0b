"""Workers in Slurm job arrays: one submission for many, and another for those that are missing."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from em_blocks.errors import RunFailedError
from em_blocks.runtime.launchers.base import cluster_environment, last_words, worker_command
from em_blocks.runtime.launchers.job_scripts import slurm_script
from em_blocks.tasks.base import BlockwiseTask

POLL_S = 5.0
LONGEST_PAUSE_S = 120.0
STOP_S = 10.0


@dataclass
class Arrays:
    """Workers of a task in job arrays of Slurm.

    Asked every few seconds, the queue says how many there are, waiting ones included; what is missing
    (their walltime ended, their node is lost) is submitted anew.
    """

    task: BlockwiseTask
    session: Path
    logs: Path
    n_slots: int
    name: str = field(init=False)
    submitted: list[str] = field(default_factory=list)
    _due: float = 0.0
    _pause: float = POLL_S
    _expected: set[str] = field(default_factory=set)
    _gone: set[str] = field(default_factory=set)

    def __post_init__(self):
        self.name = f"{self.task.run}.{os.getpid()}"

    def poll(self, gateway, roster) -> None:
        """Submit as many workers as are missing, and dismiss those whose jobs are gone."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + POLL_S
        alive = self._alive() if self.submitted else set()
        if alive is None:
            return
        gone = self._expected - alive
        for slot in gone & self._gone:  # twice: its last words may be on the way
            gateway.dismiss(slot, "its job is gone from the queue")
            roster.ended(slot)
            self._expected.discard(slot)
        self._gone = gone
        if len(alive) < self.n_slots:
            self._submit(self.n_slots - len(alive), gateway.hosts_lost)
            # Workers that end as soon as they start must not fill the queue's books.
            self._pause = min(2 * self._pause, LONGEST_PAUSE_S) if roster.barren else POLL_S
            self._due = now + self._pause

    def stop(self) -> None:
        """Cancel what still waits; those that run know that the run has ended."""
        if not self.submitted:
            return
        self._call(["scancel", "--state=PENDING", f"--name={self.name}"])
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline and self._alive():
            time.sleep(0.5)
        self._call(["scancel", f"--name={self.name}"])

    def last_words(self) -> str:
        """What the worker said at last that wrote last."""
        return last_words(self.logs)

    def _alive(self) -> set[str] | None:
        """Workers that the queue has, as ``job_task``; None if it does not answer."""
        # By name: asked for the number of a job that it has forgotten, Slurm says the same as when
        # its controller does not answer.
        found = self._call(["squeue", "--noheader", "--array", "--format=%i", f"--name={self.name}"])
        return set(found.stdout.split()) if found is not None and found.returncode == 0 else None

    def _submit(self, n: int, avoid: set[str]) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        command = worker_command(self.task, self.session)
        script = slurm_script(self.task, command, self.logs, n, name=self.name)
        away = [f"--exclude={','.join(sorted(avoid))}"] if avoid else []
        done = subprocess.run(
            ["sbatch", "--parsable", *away], input=script, capture_output=True, text=True, check=False,
            env=cluster_environment(self.task.cluster.cpus),
        )
        if done.returncode != 0 and self.submitted:
            return  # the controller may be away for a while; those that are there work on
        if done.returncode != 0:
            raise RunFailedError(
                f"Slurm does not take the workers of run {self.task.run!r}: {done.stderr.strip()[:500]} "
                "Check 'cluster' and 'launcher_options'; `--print-only` shows the script."
            )
        job = done.stdout.strip().split(";")[0]
        self.submitted.append(job)
        self._expected |= {f"{job}_{task}" for task in range(1, n + 1)}

    def _call(self, command: list[str]) -> subprocess.CompletedProcess | None:
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        except subprocess.TimeoutExpired:
            return None
