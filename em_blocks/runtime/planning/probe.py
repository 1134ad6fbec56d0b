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
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO

# Loaded as by every worker.
import em_blocks.runtime.worker.loop  # noqa: F401
from em_blocks.db.commits import peak_memory_mb
from em_blocks.db.connect import connect
from em_blocks.db.runs import RunStore
from em_blocks.outputs import RunContext
from em_blocks.runtime.protocol.job import Job
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock


def main(job_paths: list[Path]) -> None:
    """Answer until stdin ends."""
    answers = _own_stdout()
    jobs = [Job.load(path) for path in job_paths]
    for module in {job.task().worker_module for job in jobs}:
        importlib.import_module(module)
    _tell(answers, {"ready": True})
    for line in sys.stdin:
        question = json.loads(line)
        _tell(answers, _answer(jobs[question["step"]], question["blocks"]))


def _answer(job: Job, keys: Sequence[str]) -> dict:
    """Open a step, as a worker does before its first block, and do blocks of it."""
    task, begin = job.task(), time.monotonic()
    try:
        with scratch_context(job, task) as context, task.open(context) as process:
            _forget_peak()
            sample = partial(_sample, task, process, {
                "memory_before_mb": peak_memory_mb(), **_transferred()
            })
            with ThreadPoolExecutor(task.concurrent_blocks) as pool:
                samples = list(pool.map(sample, keys))
    except Exception as error:  # reported by the process that asked
        return {**_described(error), "run": task.run}
    failed = next((sample for sample in samples if "error" in sample), None)
    samples[0]["begin"] = begin  # the first block of a worker includes opening
    return {**failed, "run": task.run} if failed else {"samples": samples}


def _sample(task: BlockwiseTask, process: ProcessBlock, before: dict, key: str) -> dict:
    """Do a block and return the attributes of a `BlockSample`, or why it failed."""
    begin, report = time.monotonic(), BlockReport()
    block = task.grid().block(tuple(map(int, key.split("/"))))
    try:
        process(block, report)
    except Exception as error:
        return {**_described(error), "block": key}
    end, after = time.monotonic(), _transferred()
    return {
        "voxels": block.write_box.size, "begin": begin, "end": end,
        "read_s": report.seconds.get("read", 0.0), "memory_mb": peak_memory_mb(),
        **before, **{name: after[name] - before[name] for name in after},
    }


def _described(error: Exception) -> dict[str, str]:
    return {"error": f"{type(error).__name__}: {error}"}


@contextmanager
def scratch_context(job: Job, task: BlockwiseTask) -> Iterator[RunContext]:
    """Yield a context with the rows of the database, of which changes are dropped."""
    if not job.uri:
        yield RunContext(job.measured)
        return
    with connect(job.uri) as client:
        yield RunContext(job.measured, RunStore(client, task.db_name, task.run), scratch=True)


def _own_stdout() -> TextIO:
    """Return the real stdout, for answers only: what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def _tell(answers: TextIO, values: dict) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


def _forget_peak() -> None:
    """Reset the peak of memory, so that each step has its own."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # some containers forbid it: the peak of the steps before is kept
        return


def _transferred() -> dict[str, int]:
    """Return the bytes that this process has read from files and written to files so far."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return {"bytes_read": 0, "bytes_written": 0}
    values = dict(line.split(": ") for line in lines)
    return {"bytes_read": int(values["rchar"]), "bytes_written": int(values["wchar"])}


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:]])
