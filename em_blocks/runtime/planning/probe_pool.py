"""As many probe processes as a run has workers, doing blocks of its steps at the same time.

One process alone would be too fast: workers share cores, memory and disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from em_blocks.errors import ConfigError
from em_blocks.runtime.launchers.environment import worker_environment
from em_blocks.runtime.protocol.job import Job
from em_blocks.tasks.base import BlockwiseTask


@dataclass(frozen=True)
class BlockSample:
    """One block, as a probe process measured it.

    Attributes
    ----------
    process : int
    voxels : int
        That the block writes.
    begin, end : float
        Seconds of one clock for all processes; the first block of a process begins by opening.
    read_s : float
        Seconds of its reading.
    memory_mb, memory_before_mb : int
        Peak of the process since it opened the step, and its memory then.
    bytes_read, bytes_written : int
        From and to files, since then.
    """

    process: int
    voxels: int
    begin: float
    end: float
    read_s: float
    memory_mb: int
    memory_before_mb: int
    bytes_read: int
    bytes_written: int


class ProbePool:
    """Probe processes for steps that write to a scratch folder.

    Parameters
    ----------
    steps : sequence of BlockwiseTask
        All of their outputs below `folder`; these are made.
    folder : Path
    uri : str
        Database with the rows that are read; "" if none are.
    n : int
        Processes.

    Attributes
    ----------
    start_s : float
        Seconds until all had loaded what workers load before they open a step.

    Raises
    ------
    ConfigError
        If a process does not start.
    """

    def __init__(self, steps: Sequence[BlockwiseTask], folder: Path, *, uri: str, n: int):
        self._folder, self._begin = folder, time.monotonic()
        paths = [self._save(number, step, uri) for number, step in enumerate(steps)]
        command = [sys.executable, "-m", "em_blocks.runtime.planning.probe", *paths]
        self._processes = [self._start(command, slot, _environment(steps[0], slot)) for slot in range(n)]

    def __enter__(self) -> ProbePool:
        try:
            for process in range(len(self._processes)):
                self._answer(process)
            self.start_s = time.monotonic() - self._begin
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            process.stdin.close()
            process.stdout.close()

    def do(self, number: int, blocks: Sequence[str]) -> list[BlockSample]:
        """Have the blocks ``zi/yi/xi`` of a step done, shared out among the processes.

        A process that gets only one block does it twice: the first one is slower than all others.

        Raises
        ------
        ConfigError
            If one fails, as it would in the run.
        """
        n = min(len(blocks), len(self._processes))
        for process in range(n):
            own = list(blocks[process::n])
            self._ask(process, {"step": number, "blocks": own if len(own) > 1 else own * 2})
        return [
            BlockSample(process=process, **values)
            for process in range(n) for values in self._answer(process)["samples"]
        ]

    # -- questions and answers --------------------------------------------------------------

    def _ask(self, process: int, question: dict) -> None:
        try:
            self._processes[process].stdin.write(json.dumps(question) + "\n")
            self._processes[process].stdin.flush()
        except BrokenPipeError:
            return  # its end is its answer

    def _answer(self, process: int) -> dict:
        line = self._processes[process].stdout.readline()
        answer = json.loads(line) if line else {"error": self._why_ended(process)}
        if "error" in answer:
            where = f" of block {answer['block']}" if "block" in answer else ""
            where += f" of run {answer['run']!r}" if "run" in answer else ""
            raise ConfigError(
                f"The probe{where} failed, so the run would fail as well: {answer['error'][:600]} "
                "Nothing was changed; correct the cause and plan again. With --no-probe, blocks and "
                "bytes are planned without trying any."
            )
        return answer

    def _why_ended(self, process: int) -> str:
        lines = self._log(process).read_text(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "without a message"
        return f"the process ended ({self._processes[process].wait()}): {last}"

    def _start(self, command: list[str], slot: int, environment: dict) -> subprocess.Popen:
        with open(self._log(slot), "w") as log:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                text=True,
            )

    def _log(self, slot: int) -> Path:
        return self._folder / f"probe{slot}.log"

    def _save(self, number: int, step: BlockwiseTask, uri: str) -> str:
        path = self._folder / f"probe{number}.json"
        for spec in step.output_specs():
            spec.create(step.grid(), fingerprint="probe")
        own = uri if step.uses_rows else ""
        Job.of(step, measured=step.measure(), uri=own, epoch=0).save(path)
        return str(path)


def _environment(task: BlockwiseTask, slot: int) -> dict[str, str]:
    """Return the environment of a worker: its share of the cores here, or what it asks a cluster for."""
    if task.workers_here:
        return worker_environment(task.num_workers, slot)
    cores = len(os.sched_getaffinity(0))
    return worker_environment(max(1, cores // (task.cluster.cpus or 1)), slot)
