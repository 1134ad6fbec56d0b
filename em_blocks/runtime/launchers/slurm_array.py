"""Workers in Slurm job arrays: one submission for many, and another for those that are missing."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from em_blocks.errors import RunFailedError
from em_blocks.runtime.launchers.base import Connections, Workers
from em_blocks.runtime.launchers.environment import cluster_environment, worker_command
from em_blocks.runtime.launchers.job_script import job_script
from em_blocks.runtime.launchers.slurm_jobs import SlurmJobs, excluded
from em_blocks.tasks.base import BlockwiseTask

POLL_S = 5.0
LONGEST_PAUSE_S = 120.0
STOP_S = 10.0


class SlurmArrayLauncher(SlurmJobs):
    """Submits workers as job arrays of Slurm.

    Asked every few seconds, the queue says how many there are, waiting ones included; those that are
    missing (their walltime ended, their node is lost) are submitted again.
    """

    def __init__(self, task: BlockwiseTask, session: Path, logs: Path, n_workers: int):
        super().__init__(task, session, logs, n_workers)
        self.name = f"{task.run}.{os.getpid()}"
        self.submitted: list[str] = []
        self._due, self._pause = 0.0, POLL_S
        self._expected: set[str] = set()
        self._missing: set[str] = set()

    def poll(self, connections: Connections, workers: Workers) -> None:
        """Submit as many workers as are missing, and dismiss those whose jobs have ended."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + POLL_S
        alive = self._alive() if self.submitted else set()
        if alive is None:
            return
        missing = self._expected - alive
        for slot in missing & self._missing:  # twice: its goodbye may be on the way
            connections.dismiss(slot, "its job has left the queue")
            workers.ended(slot)
            self._expected.discard(slot)
        self._missing = missing
        if len(alive) < self.n_workers:
            self._submit(self.n_workers - len(alive), connections.hosts_lost)
            # Workers that end as soon as they start must not flood the queue.
            self._pause = min(2 * self._pause, LONGEST_PAUSE_S) if workers.unproductive else POLL_S
            self._due = now + self._pause

    def stop(self) -> None:
        """Cancel jobs that still wait; workers that run have been told that the run ended."""
        if not self.submitted:
            return
        self._call(["scancel", "--state=PENDING", f"--name={self.name}"])
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline and self._alive():
            time.sleep(0.5)
        self._call(["scancel", f"--name={self.name}"])

    def _alive(self) -> set[str] | None:
        """Return the workers in the queue, as ``job_task``; None if it does not answer."""
        # By name: asked for the number of a job that it has forgotten, Slurm says the same as when
        # its controller does not answer.
        found = self._call(["squeue", "--noheader", "--array", "--format=%i", f"--name={self.name}"])
        return set(found.stdout.split()) if found is not None and found.returncode == 0 else None

    def _submit(self, n: int, avoid: set[str]) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        directives = self.directives(self.task, self.logs, n, self.name)
        script = job_script(self.task, worker_command(self.task, self.session), directives)
        done = subprocess.run(
            ["sbatch", "--parsable", *excluded(avoid)], input=script, capture_output=True, text=True,
            env=cluster_environment(self.task.cluster.cpus), check=False,
        )
        if done.returncode != 0 and self.submitted:
            return  # the controller may be unavailable for a while; the others work on
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
