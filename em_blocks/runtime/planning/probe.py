"""A process like a worker, which does the blocks that it is asked for and measures them.

``python -m em_blocks.runtime.planning.probe JOB ...``, one job per step: started by
`em_blocks.runtime.planning.probe_pool` with the environment of a worker, so that threads and memory
are those of a worker. Questions come on stdin and answers go to stdout, one JSON object per line.
Nothing is written but what the jobs, which lie in a scratch folder, write.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

# What every worker loads, before its start is measured.
import em_blocks.runtime.worker.loop  # noqa: F401
from em_blocks.db.commits import peak_memory_mb
from em_blocks.db.connect import connect
from em_blocks.db.runs import RunStore
from em_blocks.geometry import BlockGrid
from em_blocks.outputs import RunContext
from em_blocks.runtime.protocol.job import Job
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock


def main(job_paths: list[Path]) -> None:
    """Answer until stdin ends."""
    answers = _own_stdout()
    start = time.monotonic()
    jobs = [Job.load(path) for path in job_paths]
    tasks = [job.task() for job in jobs]
    for module in {task.worker_module for task in tasks}:
        importlib.import_module(module)
    with ExitStack() as stack:
        steps = _Steps(jobs, tasks, stack)
        pool = stack.enter_context(ThreadPoolExecutor(max(t.concurrent_blocks for t in tasks)))
        _tell(answers, {"ready": True, "import_s": time.monotonic() - start})
        for line in sys.stdin:
            question = json.loads(line)
            pool.submit(_answer, steps, question["step"], question["block"], answers)


@dataclass(frozen=True)
class _Opened:
    """A step that can do blocks."""

    grid: BlockGrid
    process: ProcessBlock
    memory_mb: int  # before the first block
    bytes_read: int
    bytes_written: int


class _Steps:
    """Opens each step at its first block, as a worker does."""

    def __init__(self, jobs: list[Job], tasks: list[BlockwiseTask], stack: ExitStack):
        self._jobs, self._tasks, self._stack = jobs, tasks, stack
        self._opened: dict[int, _Opened] = {}
        self._opening = threading.Lock()

    def __getitem__(self, number: int) -> _Opened:
        with self._opening:
            if number not in self._opened:
                self._opened[number] = self._open(number)
            return self._opened[number]

    def _open(self, number: int) -> _Opened:
        job, task = self._jobs[number], self._tasks[number]
        context = self._stack.enter_context(scratch_context(job, task))
        process = self._stack.enter_context(task.open(context))
        _forget_peak()
        return _Opened(task.grid(), process, peak_memory_mb(), *_transferred())


def _answer(steps: _Steps, number: int, key: str, answers: TextIO) -> None:
    try:
        _tell(answers, _measured(steps, number, key))
    except Exception as error:  # said by the process that asked
        _tell(answers, {"step": number, "block": key, "error": f"{type(error).__name__}: {error}"})


def _measured(steps: _Steps, number: int, key: str) -> dict:
    begin, report = time.monotonic(), BlockReport()
    step = steps[number]
    block = step.grid.block(tuple(map(int, key.split("/"))))
    step.process(block, report)
    read, written = _transferred()
    return {
        "step": number, "block": key, "voxels": block.write_box.size, "begin": begin,
        "end": time.monotonic(), "seconds": report.seconds, "checksums": report.checksums,
        "memory_mb": peak_memory_mb(), "memory_before_mb": step.memory_mb,
        "bytes_read": read - step.bytes_read, "bytes_written": written - step.bytes_written,
    }


@contextmanager
def scratch_context(job: Job, task: BlockwiseTask) -> Iterator[RunContext]:
    """Read rows as the database has them, but drop changes; a job without a database has none."""
    if not job.uri:
        yield RunContext(job.measured)
        return
    with connect(job.uri) as client:
        yield RunContext(job.measured, RunStore(client, task.db_name, task.run), scratch=True)


def _own_stdout() -> TextIO:
    """The real stdout, for answers only: what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


_telling = threading.Lock()


def _tell(answers: TextIO, values: dict) -> None:
    with _telling:
        answers.write(json.dumps(values) + "\n")
        answers.flush()


def _forget_peak() -> None:
    """Let the peak of memory begin anew, so that each step has its own."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # some containers forbid it: the peak of the steps before is kept
        return


def _transferred() -> tuple[int, int]:
    """Bytes that this process has read from files and written to files so far."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0, 0
    values = dict(line.split(": ") for line in lines)
    return int(values["rchar"]), int(values["wchar"])


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:]])
