"""As many probe processes as a run has workers, doing blocks of its steps at the same time.

One process alone would be too fast: workers share cores, memory and disk.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from em_blocks.errors import ConfigError
from em_blocks.runtime.launchers.environment import worker_environment
from em_blocks.runtime.protocol.job import Job
from em_blocks.tasks.base import BlockwiseTask


@dataclass(frozen=True)
class Sample:
    """One block, as a probe process measured it.

    Attributes
    ----------
    process : int
    voxels : int
        That the block writes.
    begin, end : float
        Seconds of one clock for all processes; the first block of a process begins by opening.
    seconds : dict
        Per stage.
    memory_mb, memory_before_mb : int
        Peak of the process since it opened the step, and what it had then.
    bytes_read, bytes_written : int
        From and to files, since then.
    """

    process: int
    block: str
    voxels: int
    begin: float
    end: float
    seconds: dict[str, float]
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
        Database with the synapses that are read; "" if none are.
    n : int
        Processes.

    Raises
    ------
    ConfigError
        If a process does not start.
    """

    def __init__(self, steps: Sequence[BlockwiseTask], folder: Path, *, uri: str, n: int):
        self._steps, self._folder = steps, folder
        self._answers: queue.Queue[tuple[int, dict]] = queue.Queue()
        self._listeners: list[threading.Thread] = []
        paths = [self._save(number, step, uri) for number, step in enumerate(steps)]
        command = [sys.executable, "-m", "em_blocks.runtime.planning.probe", *paths]
        workers = steps[0].num_workers
        self._processes = [
            self._start(command, slot, _environment(steps[0], workers, slot)) for slot in range(n)
        ]

    def __enter__(self) -> ProbePool:
        try:
            self.import_s = max(self._next()[1]["import_s"] for _ in self._processes)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._processes)

    def close(self) -> None:
        """End all processes, at once."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            process.stdin.close()
        for listener in self._listeners:  # they read logs, in a folder that is removed next
            listener.join()

    def do(self, number: int, blocks: Sequence[str]) -> list[Sample]:
        """Have the blocks ``zi/yi/xi`` of a step done, each by whoever is free.

        A process that got only one block does it twice: the first one is slower than all others.

        Raises
        ------
        ConfigError
            If one fails, as it would in the run.
        """
        found = self._hand_out(number, blocks)
        single = {s.process: s.block for s in found if _count(found, s.process) == 1}
        for process, block in single.items():
            self._ask(process, number, block)
        return found + [self._sample() for _ in single]

    # -- questions and answers --------------------------------------------------------------

    def _hand_out(self, number: int, blocks: Sequence[str]) -> list[Sample]:
        left = list(blocks)
        held = self._steps[number].concurrent_blocks
        for process in [p for p in range(len(self)) for _ in range(held)][: len(left)]:
            self._ask(process, number, left.pop(0))
        found = []
        while len(found) < len(blocks):
            found.append(self._sample())
            if left:
                self._ask(found[-1].process, number, left.pop(0))
        return found

    def _ask(self, process: int, number: int, block: str) -> None:
        question = json.dumps({"step": number, "block": block})
        try:
            self._processes[process].stdin.write(question + "\n")
            self._processes[process].stdin.flush()
        except BrokenPipeError:
            return  # its end is the next answer

    def _sample(self) -> Sample:
        process, answer = self._next()
        names = Sample.__dataclass_fields__.keys() & answer.keys()
        return Sample(process=process, **{name: answer[name] for name in names})

    def _next(self) -> tuple[int, dict]:
        process, answer = self._answers.get()
        if "error" in answer:
            where = f" of block {answer['block']}" if "block" in answer else ""
            run = f" of run {self._steps[answer['step']].run!r}" if "step" in answer else ""
            raise ConfigError(
                f"The probe{where}{run} failed, so the run would fail as well: {answer['error'][:600]} "
                "Nothing was changed; correct the cause and plan again. With --no-probe, blocks and "
                "bytes are planned without trying any."
            )
        return process, answer

    def _start(self, command: list[str], slot: int, environment: dict) -> subprocess.Popen:
        with open(self._log(slot), "w") as log:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                text=True,
            )
        listener = threading.Thread(target=self._listen, args=(slot, process), daemon=True)
        listener.start()
        self._listeners.append(listener)
        return process

    def _listen(self, slot: int, process: subprocess.Popen) -> None:
        with process.stdout:
            for line in process.stdout:
                self._answers.put((slot, json.loads(line)))
        lines = self._log(slot).read_text(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else "without a word"
        self._answers.put((slot, {"error": f"the process ended ({process.wait()}): {reason}"}))

    def _log(self, slot: int) -> Path:
        return self._folder / f"probe{slot}.log"

    def _save(self, number: int, step: BlockwiseTask, uri: str) -> str:
        path = self._folder / f"probe{number}.json"
        for spec in step.output_specs():
            spec.create(step.grid(), fingerprint="probe")
        own = uri if step.uses_rows else ""
        Job.of(step, measured=step.measure(), uri=own, epoch=0).save(path)
        return str(path)


def _environment(task: BlockwiseTask, workers: int, slot: int) -> dict[str, str]:
    """As of a worker: here its share of the cores, on a cluster what it asks for."""
    if task.workers_here:
        return worker_environment(workers, slot)
    cores = len(os.sched_getaffinity(0))
    return worker_environment(max(1, cores // (task.cluster.cpus or 1)), slot)


def _count(samples: Sequence[Sample], process: int) -> int:
    return sum(sample.process == process for sample in samples)
