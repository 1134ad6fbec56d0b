"""Do a few blocks as a worker would, into a scratch folder, and measure them.

``python -m em_blocks.runtime.probe JOB INDEX ...``: started by `em_blocks.runtime.plan` with the
environment of a worker, so that threads and memory are those of a worker.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from em_blocks.db.commits import peak_memory_mb
from em_blocks.runtime.job import Job
from em_blocks.tasks.base import BlockReport


def main(job_path: Path, keys: list[str]) -> None:
    job = Job.load(job_path)
    task = job.task()
    grid = task.grid()
    for spec in task.output_specs():
        spec.create(grid, fingerprint="probe")
    start = time.perf_counter()
    with task.open(job.measured) as process:
        loaded = time.perf_counter() - start
        blocks = []
        for key in keys:
            report, start = BlockReport(), time.perf_counter()
            process(grid.block(tuple(map(int, key.split("/")))), report)
            blocks.append({"block": key, "seconds": time.perf_counter() - start,
                           "stages": report.seconds, "checksums": report.checksums,
                           "counts": report.counts})
    print(json.dumps({"load_s": loaded, "blocks": blocks, "memory_mb": peak_memory_mb()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
