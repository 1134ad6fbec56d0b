"""From maps to instances: Mvoxel/s and memory, against a pipeline of scikit-image on whole arrays.

The maps are a generated tile of mitochondria-like objects that repeats. Scikit-image gets its mask and
computes distances, their peaks, a watershed and the removal of small objects, on one core and in memory;
``em-blocks segment-instances`` reads maps from disk, smooths them, and writes labels, with and without a
second worker.

``--whole`` does 200 x 4096 x 4096 voxels instead, and a quarter of that, whose memory must be the same.
``--grids`` compares four block shapes with one block for all of 256 x 1024 x 1024 voxels. Random kills
are tried by ``kill_trials.py``.
"""

from __future__ import annotations

import json
import math
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
from em_blocks.geometry import BlockGrid
from em_blocks.runtime.scheduler.pipeline import run_config
from em_blocks.tasks.instances.segment_instances import SegmentInstances
from em_blocks.volumes import Volume
from parts.capsule_maps import FRAME, capsule_tile, config_of, repeated

WHOLE = (200, 4096, 4096)
GRIDS = (256, 1024, 1024)
BLOCKS = [(100, 512, 512), (64, 256, 1024), (128, 384, 256), (256, 1024, 128)]

_PIPELINE = """
import sys, time
import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.morphology import remove_small_objects
from skimage.segmentation import watershed
foreground = np.load(sys.argv[1])
begin = time.perf_counter()
mask = foreground >= 128
distance = ndimage.distance_transform_edt(mask, sampling=(30, 8, 8))
at = time.perf_counter()
components, _ = ndimage.label(mask)
peaks = peak_local_max(distance, min_distance=10, labels=components, exclude_border=False)
seeds = np.zeros(mask.shape, np.int32)
seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
labels = remove_small_objects(watershed(-distance, seeds, mask=mask), max_size=999)
print(mask.size / 1e6 / (time.perf_counter() - begin), mask.size / 1e6 / (at - begin))
"""


def scikit_image(folder: Path, tile: dict[str, np.ndarray]) -> tuple[float, float]:
    """Return Mvoxel/s of the pipeline in a process of its own, and those of its distance transform."""
    np.save(folder / "tile.npy", tile["foreground"])
    command = [sys.executable, "-c", _PIPELINE, str(folder / "tile.npy")]
    rate, distance = subprocess.check_output(command, text=True).split()
    return float(rate), float(distance)


def segmented(folder: Path, paths: dict[str, str], **options) -> dict:
    """Run the job; return Mvoxel/s, seconds of every step, the peak memory of a worker, the output."""
    task = SegmentInstances.from_dict(config_of(folder, paths, **options))
    begin = time.perf_counter()
    reports = run_config(task, console=Console(quiet=True))
    assert all(report.ok for report in reports), reports
    seconds = time.perf_counter() - begin
    return {
        "mvoxel_s": math.prod(Volume.open(paths["foreground"]).shape) / 1e6 / seconds,
        "seconds": seconds, "memory_mb": peak_mb(task), "output": f"{task.output}/objects",
        "work": {step.run.split(".")[-1]: sum(report.seconds.values())
                 for step, report in zip(task.steps(), reports, strict=True)},
    }


def peak_mb(task: SegmentInstances) -> int:
    """Return the largest peak memory that a worker reported with any block."""
    first = task.steps()[0]
    with database_uri(None, first.home) as uri, connect(uri) as client:
        return max(
            document["peak_memory_mb"] for step in task.steps()
            for document in RunStore(client, step.db_name, step.run).documents()
        )


def speed(root: Path, tile: dict[str, np.ndarray], shape: tuple[int, int, int]) -> None:
    paths = repeated(str(root), tile, shape)
    against, distance = scikit_image(root, tile)
    print(f"scikit-image, one core, in memory: {against:.2f} Mvoxel/s (distance transform alone "
          f"{distance:.2f})")
    for workers in (1, 2):
        found = segmented(root / str(workers), paths, num_workers=workers)
        show(f"{shape} voxels, {workers} worker(s)", found)
        per_core = found["mvoxel_s"] / workers
    print(json.dumps({"name": "maps to instances, per core, against scikit-image",
                      "value": round(per_core, 2), "unit": "Mvoxel/s", "against": round(against, 2),
                      "ratio": round(per_core / against, 2)}))


def whole(root: Path, tile: dict[str, np.ndarray], shape: tuple[int, int, int]) -> None:
    peaks = []
    quarter = (shape[0], shape[1] // 2, shape[2] // 2)
    for name, each in (("quarter", quarter), ("whole", shape)):
        paths = repeated(str(root / name), tile, each)
        found = segmented(root / name, paths, num_workers=2)
        show(f"{each} voxels, 2 workers", found)
        peaks.append(found["memory_mb"])
    print(json.dumps({"name": "peak memory of a worker, against a quarter of the volume",
                      "value": peaks[1], "unit": "MB", "against": peaks[0],
                      "ratio": round(peaks[1] / peaks[0], 3)}))


def grids(root: Path, tile: dict[str, np.ndarray], shape: tuple[int, int, int]) -> None:
    paths = repeated(str(root), tile, shape)
    chunk = (4, 128, 128)
    reference = segmented(root / "one", paths, chunk_shape=chunk, block_shape=shape)
    show("one block", reference)
    different = 0
    for number, block in enumerate(BLOCKS):
        found = segmented(root / str(number), paths, num_workers=2, chunk_shape=chunk, block_shape=block)
        show(f"blocks of {block}", found)
        different += differing(reference["output"], found["output"])
    n = math.prod(shape) * len(BLOCKS)
    print(json.dumps({"name": "voxels that depend on the blocks", "value": different,
                      "unit": "voxels", "against": n, "ratio": different / n}))
    sys.exit(1 if different else 0)


def differing(one: str, other: str) -> int:
    """Count voxels in which two volumes differ: labels are the same, not only up to renaming."""
    a, b = Volume.open(one), Volume.open(other)
    blocks = BlockGrid(FRAME, a.shape, (64, 512, 512)).blocks()
    return sum(int((a.read(block.write_box) != b.read(block.write_box)).sum()) for block in blocks)


def show(what: str, found: dict) -> None:
    steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in found["work"].items())
    print(f"{what}: {found['mvoxel_s']:.2f} Mvoxel/s, {found['seconds']:.1f} s, {found['memory_mb']} MB "
          f"per worker; seconds of work: {steps}", flush=True)


@click.command()
@click.option("--shape", nargs=3, type=int, default=(100, 1536, 1536), show_default=True)
@click.option("--whole", "is_whole", is_flag=True, help="200 x 4096 x 4096 voxels.")
@click.option("--grids", "of_grids", is_flag=True, help="Four block shapes against one block.")
def main(shape: tuple[int, int, int], is_whole: bool, of_grids: bool) -> None:
    tile = capsule_tile()
    with tempfile.TemporaryDirectory() as name:
        if is_whole:
            whole(Path(name), tile, WHOLE)
        elif of_grids:
            grids(Path(name), tile, GRIDS)
        else:
            speed(Path(name), tile, shape)


if __name__ == "__main__":
    main()
