"""How much of the bare network's speed is left in the whole pipeline.

Pipeline: `run_blockwise` on a volume on disk - scheduler, workers that read, predict, quantise,
compress and write, durable commits. Bare: as many processes with as many threads each, which apply
the same network to the same tiles in memory and keep nothing. Both are timed from the first block
(tile) to the last; the seconds that workers need to start are printed beside it. Bare runs are
made before and after the pipeline's, because the speed of shared machines drifts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from rich.console import Console

from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import RunStore
from em_blocks.geometry import Frame
from em_blocks.runtime.job import Job
from em_blocks.runtime.launch import worker_environment
from em_blocks.runtime.run import run_blockwise
from em_blocks.tasks.predict import Predict
from parts.noise import SETUPS, noise

BLOCK, FRAME = (64, 128, 128), Frame((10.0, 10.0, 10.0))


def pipeline(task: Predict) -> tuple[float, float]:
    """Voxels per second from the first block's start to the last one's end, and start-up seconds."""
    start = time.time()
    report = run_blockwise(task, console=Console(stderr=True))
    assert report.ok, report
    with database_uri(None, task.home) as uri, connect(uri) as client:
        documents = list(RunStore(client, task.db_name, task.run).documents())
    first = min(d["started"] for d in documents).timestamp()
    last = max(d["finished"] for d in documents).timestamp()
    return np.prod(task.grid().volume_shape) / (last - first), first - start


def bare(task: Predict, job_path: Path, seconds: float) -> float:
    """Voxels per second of the network alone, in as many processes as there are workers."""
    command = [sys.executable, __file__, "--bare", str(job_path), "--seconds", str(seconds)]
    processes = [
        subprocess.Popen(command, env=worker_environment(task.num_workers, slot),
                         stdout=subprocess.PIPE, text=True)
        for slot in range(task.num_workers)
    ]
    return sum(float(p.communicate()[0].splitlines()[-1]) for p in processes)


def bare_process(job_path: Path, seconds: float) -> None:
    """Print voxels per second of `network.predict` on prepared batches of tiles."""
    import os

    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    job = Job.load(job_path)
    task = job.task()
    predictor = task.predictor(job.measured)
    tile = predictor.tile_shape
    shape = [t + 2 * c for t, c in zip(tile, predictor.context, strict=True)]
    batch = torch.rand(task.batch_size, 1, *shape, device=predictor.device) * 2 - 1
    batch = batch.contiguous(memory_format=torch.channels_last_3d)
    forward(predictor, batch)
    n, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        forward(predictor, batch)
        n += task.batch_size
    print(n * np.prod(tile) / (time.perf_counter() - start))


def forward(predictor, batch) -> None:
    import torch

    dtype = predictor.dtype
    with torch.inference_mode(), torch.autocast(
        predictor.device.type, dtype=dtype, enabled=dtype != torch.float32
    ):
        predictor.network.predict(batch)
    if predictor.device.type == "cuda":
        torch.cuda.synchronize()


@click.command()
@click.option("--blocks", default=12, show_default=True, help="Blocks of 64x128x128 voxels.")
@click.option("--workers", default=2, show_default=True)
@click.option("--batch-size", default=1, show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default=None)
@click.option("--bare", "job", type=click.Path(path_type=Path), default=None, hidden=True)
@click.option("--seconds", default=15.0, show_default=True, help="Length of a bare run.")
def main(blocks: int, workers: int, batch_size: int, precision: str | None, job: Path | None,
         seconds: float) -> None:
    if job is not None:
        bare_process(job, seconds)
        return
    with tempfile.TemporaryDirectory() as name:
        folder, shape = Path(name), (BLOCK[0] * blocks, *BLOCK[1:])
        task = Predict.from_dict({
            "kind": "predict", "run": "efficiency", "raw": noise(folder, shape, FRAME, (64,) * 3),
            "setup": str(SETUPS / "affinities"), "output": str(folder / "out/p.zarr"),
            "block_shape": BLOCK, "tile_shape": (64, 64, 64), "num_workers": workers,
            "batch_size": batch_size, "precision": precision,
        })
        measured = task.measure()
        Job.of(task, measured=measured, uri="", epoch=0).save(folder / "job.json")
        before = bare(task, folder / "job.json", seconds)
        rate, start_up = pipeline(task)
        after = bare(task, folder / "job.json", seconds)
    against = (before + after) / 2
    print(
        f"{workers} workers, {measured['precision']}: bare {before / 1e6:.3f} and {after / 1e6:.3f}, "
        f"pipeline {rate / 1e6:.3f} Mvoxel/s; workers were ready after {start_up:.1f} s"
    )
    print(json.dumps({"name": "predict efficiency", "value": round(rate), "unit": "voxel/s",
                      "against": round(against), "ratio": round(rate / against, 3)}))


if __name__ == "__main__":
    main()
