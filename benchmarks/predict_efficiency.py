"""Compare the speed of the whole pipeline with that of the bare network, and its way with all others.

Pipeline: `run_blockwise` on a volume on disk - scheduler, workers that read, predict, quantise,
compress and write, durable commits. Bare: as many processes with as many threads each, which apply
the same network to the same tiles in memory and keep nothing. Both are timed from the first block
(tile) to the last. They take turns, each first in every other pair, because the speed of shared
machines drifts; the ratio is the median of those of the pairs.

Precision, tile and batch are those that a run of a large volume would choose, if they are not given.
Every other way that it could have chosen is run bare too, in turns as well.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
from rich.console import Console

from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import RunStore
from em_blocks.geometry import Frame
from em_blocks.nets.timing import Way
from em_blocks.runtime.launchers.environment import worker_environment
from em_blocks.runtime.protocol.job import Job
from em_blocks.runtime.scheduler.run import run_blockwise
from em_blocks.tasks.prediction.predict import Predict
from em_blocks.tasks.prediction.ways import choose_way, pass_of, possible_ways
from em_blocks.volumes import Volume
from parts.noise import SETUPS, noise

FRAME = Frame((10.0, 10.0, 10.0))
LARGE_BLOCKS = 1000
"""Of the volume that a way is chosen for: so many that timing a few seconds pays."""
WITHIN = 0.95
"""Of the speed of the fastest way, that of the chosen one."""


def pipeline(task: Predict) -> float:
    """Voxels per second from the first block's start to the last one's end."""
    report = run_blockwise(task, console=Console(stderr=True), overwrite=True)
    assert report.ok, report
    with database_uri(None, task.home) as uri, connect(uri) as client:
        documents = list(RunStore(client, task.db_name, task.run).documents())
    first = min(d["started"] for d in documents).timestamp()
    last = max(d["finished"] for d in documents).timestamp()
    return np.prod(task.grid().volume_shape) / (last - first)


def bare(task: Predict, way: Way, job_path: Path, seconds: float) -> float:
    """Voxels per second of the network alone, in as many processes as there are workers."""
    command = [
        sys.executable, __file__, "--bare", str(job_path), "--seconds", str(seconds),
        "--precision", way.precision, "--tile", *map(str, way.tile_shape),
        "--batch-size", str(way.batch_size),
    ]
    processes = [
        subprocess.Popen(command, env=worker_environment(task.num_workers, slot),
                         stdout=subprocess.PIPE, text=True)
        for slot in range(task.num_workers)
    ]
    answers = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes), "a bare process failed"
    return sum(float(answer.splitlines()[-1]) for answer in answers)


def bare_process(job_path: Path, way: Way, seconds: float) -> None:
    """Print voxels per second of passes over prepared batches of tiles; of two passes at least."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    once = pass_of(Job.load(job_path).task(), way)
    once()
    n, start = 0, time.perf_counter()
    while n < 2 or time.perf_counter() - start < seconds:
        once()
        n += 1
    print(n * way.voxels / (time.perf_counter() - start))


def chosen_way(values: dict, folder: Path) -> tuple[Way, list[Way]]:
    """Return the way that a run of many such blocks would choose, and all that it tried."""
    shape = (values["block_shape"][0] * LARGE_BLOCKS, *values["block_shape"][1:])
    raw = Volume.create(str(folder / "large.zarr/raw"), shape=shape, dtype="uint8", frame=FRAME,
                        chunk_shape=(64, 64, 64))
    task = Predict.from_dict({**values, "raw": raw.path})
    choice = choose_way(task)
    chosen = Way(choice["precision"], tuple(choice["tile_shape"]), choice["batch_size"])
    return chosen, possible_ways(task)


def compared(task: Predict, ways: Sequence[Way], job: Path, seconds: float, rounds: int):
    """Median voxels per second of every way, in turns."""
    rates: dict[Way, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            rates[way].append(bare(task, way, job, seconds))
    return {way: statistics.median(found) for way, found in rates.items()}


def shown(rates: dict[Way, float], chosen: Way) -> None:
    """Print a table of all ways, and a line of JSON on the choice."""
    for way, rate in sorted(rates.items(), key=lambda item: -item[1]):
        print(f"{way.precision:5} tile {'x'.join(map(str, way.tile_shape)):12} batch {way.batch_size:2} "
              f"{rate / 1e6:9.3f} Mvoxel/s{' (chosen)' if way == chosen else ''}", flush=True)
    best = max(rates.values())
    print(json.dumps({"name": "chosen way against the fastest", "value": round(rates[chosen]),
                      "unit": "voxel/s", "against": round(best),
                      "ratio": round(rates[chosen] / best, 3), "within": WITHIN}), flush=True)


def with_way(task: Predict, way: Way) -> Predict:
    return task.model_copy(update={
        "precision": way.precision, "tile_shape": way.tile_shape, "batch_size": way.batch_size,
    })


def in_pairs(
    first: Callable[[], float], second: Callable[[], float], n: int
) -> list[tuple[float, float]]:
    """Yield the results of both, `n` times; each goes first in every other pair."""
    pairs = []
    for turn in range(n):
        if turn % 2 == 0:
            one, other = first(), second()
        else:
            other, one = second(), first()
        pairs.append((one, other))
    return pairs


@click.command()
@click.option("--blocks", default=8, show_default=True)
@click.option("--block", nargs=3, type=int, default=(64, 128, 128), show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--setup", default="affinities", show_default=True, help="Of voxels of 10 nm.")
@click.option("--batch-size", type=int, default=None)
@click.option("--tile", nargs=3, type=int, default=None)
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default=None)
@click.option("--seconds", default=5.0, show_default=True, help="Length of a bare run.")
@click.option("--rounds", default=3, show_default=True, help="Pairs, and turns of the ways.")
@click.option("--bare", "job", type=click.Path(path_type=Path), default=None, hidden=True)
def main(blocks, block, workers, setup, batch_size, tile, precision, seconds, rounds, job) -> None:
    if job is not None:
        bare_process(job, Way(precision, tile, batch_size), seconds)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = {
            "kind": "predict", "run": "efficiency", "setup": str(SETUPS / setup),
            "output": str(folder / "out/p.zarr"), "block_shape": block, "num_workers": workers,
            "batch_size": batch_size, "precision": precision, "tile_shape": tile,
        }
        way, ways = chosen_way(values, folder)
        raw = noise(folder, (block[0] * blocks, *block[1:]), FRAME, (64,) * 3)
        task = with_way(Predict.from_dict({**values, "raw": raw}), way)
        path = folder / "job.json"
        Job.of(task, measured=task.measure(), uri="", epoch=0).save(path)
        if len(ways) > 1:
            shown(compared(task, ways, path, seconds, rounds), way)
        pairs = in_pairs(
            lambda: pipeline(task), lambda: bare(task, way, path, seconds), rounds
        )
    ratio = statistics.median(rate / against for rate, against in pairs)
    rate, against = (statistics.median(found) for found in zip(*pairs, strict=True))
    print(f"{workers} workers, {way}; pipeline and bare in Mvoxel/s: "
          + ", ".join(f"{a / 1e6:.3f} {b / 1e6:.3f}" for a, b in pairs))
    print(json.dumps({"name": "predict efficiency", "value": round(rate), "unit": "voxel/s",
                      "against": round(against), "ratio": round(ratio, 3)}))


if __name__ == "__main__":
    main()
