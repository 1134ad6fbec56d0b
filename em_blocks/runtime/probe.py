"""Do a few blocks as a worker would, into a scratch folder, and measure them.

``python -m em_blocks.runtime.probe JOB INDEX ...``: started by `em_blocks.runtime.plan` with the
environment of a worker, so that threads and memory are those of a worker.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from em_blocks.db.commits import peak_memory_mb
from em_blocks.db.connect import connect
from em_blocks.db.synapses import ScratchSynapses
from em_blocks.runtime.job import Job
from em_blocks.tasks.base import BlockReport, BlockwiseTask


def main(job_path: Path, keys: list[str]) -> None:
    job = Job.load(job_path)
    task = job.task()
    grid = task.grid()
    for spec in task.output_specs():
        spec.create(grid, fingerprint="probe")
    with ExitStack() as stack:
        synapses = stack.enter_context(scratch_synapses(task, job.uri))
        start = time.perf_counter()
        process = stack.enter_context(task.start(job.measured, synapses))
        loaded = time.perf_counter() - start
        blocks = []
        for key in keys:
            report, start = BlockReport(), time.perf_counter()
            process(grid.block(tuple(map(int, key.split("/")))), report)
            blocks.append({"block": key, "seconds": time.perf_counter() - start,
                           "stages": report.seconds, "checksums": report.checksums,
                           "counts": report.counts})
    print(json.dumps({"load_s": loaded, "blocks": blocks, "memory_mb": peak_memory_mb()}))


@contextmanager
def scratch_synapses(task: BlockwiseTask, uri: str) -> Iterator[ScratchSynapses | None]:
    """Synapses as the database has them, changes dropped; None for a task without any."""
    if not uri:
        yield None
        return
    with connect(uri) as client:
        yield ScratchSynapses(client, task.db_name, task.run)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
