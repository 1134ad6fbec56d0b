"""Speed of equalisation (CLAHE) in one process, against scikit-image and against one pass with context.

A generated EM volume (uint8) in chunks of 64^3. `two steps` is what `em-blocks equalize` does: the
maps of all regions, then the image, reading and writing included. `one pass` reads every block with
all regions around it, and makes their maps again for each block. scikit-image works in memory:
nothing is read or written. Seconds are those of the CPU, of all threads of the process: other work
on the machine does not count. The share of voxels that depend on the blocks is that of scikit-image
applied to every block with half a region around it, as incasem does; ours is none.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
from skimage.exposure import equalize_adapthist

from em_blocks.geometry import BlockGrid, Box, Frame, Triple
from em_blocks.kernels.images.contrast_maps import contrast_maps, region_histograms
from em_blocks.kernels.images.equalize import equalize, regions_around
from em_blocks.kernels.synthetic.volume import phantom
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.preparation.equalize import Equalize
from em_blocks.volumes import Volume

BLOCK, CLIP_LIMIT = 128, 0.02


def task(raw: Volume, folder: Path, kernel_shape: Triple) -> Equalize:
    return Equalize.from_dict({
        "kind": "equalize", "run": "equalize", "raw": raw.path, "kernel_shape": kernel_shape,
        "output": str(folder / "out.zarr/equalized"), "block_shape": [BLOCK] * 3,
    })


def two_steps(raw: Volume, folder: Path, kernel_shape: Triple) -> Volume:
    config = task(raw, folder, kernel_shape)
    for step in config.steps():
        for spec in step.output_specs():
            spec.create(step.grid(), "benchmark")
        with step.open(RunContext()) as process:
            for block in step.grid().blocks():
                process(block, BlockReport())
    return Volume.open(config.output)


def one_pass(raw: Volume, folder: Path, kernel_shape: Triple) -> Volume:
    last = task(raw, folder, kernel_shape).steps()[-1]
    (spec,) = last.output_specs()
    spec.create(last.grid(), "benchmark")
    made = Volume.open(spec.path, mode="r+")
    for block in last.grid().blocks():
        box = block.write_box
        seen = read_in_one_pass(box, raw, kernel_shape)
        grey = raw.read(seen)
        counted = np.ones(grey.shape, bool)
        maps = contrast_maps(region_histograms(grey, counted, kernel_shape), CLIP_LIMIT)
        own = box.relative_to(seen).slices
        made.write(box, equalize(grey[own], counted[own], maps, box=box, kernel_shape=kernel_shape,
                                 shape=raw.shape))
    return made


def read_in_one_pass(box: Box, raw: Volume, kernel_shape: Triple) -> Box:
    """Return the voxels of all regions that a box needs."""
    regions = regions_around(box, kernel_shape, raw.shape)
    begin, end = (np.multiply(side, kernel_shape) for side in (regions.offset, regions.end))
    return Box.between(begin, end).intersect(raw.box)


def read_per_voxel(kernel_shape: Triple, blocks: int = 16) -> float:
    """Voxels that one pass reads for each of a volume of `blocks` blocks along every axis."""
    shape = (blocks * BLOCK,) * 3
    raw = SimpleNamespace(shape=shape, box=Box((0, 0, 0), shape))
    grid = BlockGrid(Frame((1.0, 1.0, 1.0)), shape, (BLOCK,) * 3)
    middle = grid.block((blocks // 2,) * 3).write_box
    return read_in_one_pass(middle, raw, kernel_shape).size / middle.size


def rate(raw: Volume, way, kernel_shape: Triple) -> tuple[float, np.ndarray]:
    """Mvoxel per second of CPU, and the result."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        made = way(raw, Path(folder), kernel_shape)
        seconds = time.process_time() - start
        return raw.box.size / 1e6 / seconds, made.read(made.box)


def stored(values: np.ndarray, folder: Path, name: str) -> Volume:
    volume = Volume.create(str(folder / f"{name}.zarr/raw"), shape=values.shape, dtype=values.dtype,
                           frame=Frame((10.0, 10.0, 10.0)), chunk_shape=(64,) * 3)
    volume.write(volume.box, values)
    return volume


@click.command()
@click.option("--size", default=256, show_default=True, help="Voxels along each axis.")
@click.option("--memory", is_flag=True, hidden=True)
def main(size: int, memory: bool) -> None:
    if memory:
        return equalize_noise(size)
    values = phantom((size,) * 3, voxel_size=(10, 10, 10), seed=5).raw
    with tempfile.TemporaryDirectory() as folder:
        raw = stored(values, Path(folder), "raw")
        small = stored(values[:64, :64, :64].copy(), Path(folder), "small")
        for kernel_shape in ((64, 64, 64), (128, 128, 128), (1, 128, 128)):
            for way in (two_steps, one_pass):
                rate(small, way, kernel_shape)  # compiles what is compiled
            print(json.dumps({
                "name": f"voxels read per voxel, regions of {kernel_shape}", "value": 2, "unit": "",
                "against": read_per_voxel(kernel_shape),
                "ratio": round(read_per_voxel(kernel_shape) / 2, 1),
            }))
            ours, made = rate(raw, two_steps, kernel_shape)
            with_context, same = rate(raw, one_pass, kernel_shape)
            assert np.array_equal(made, same)
            start = time.process_time()
            equalize_adapthist(values, kernel_size=kernel_shape, clip_limit=CLIP_LIMIT)
            theirs = values.size / 1e6 / (time.process_time() - start)
            for against, value in (("one pass", with_context), ("scikit-image", theirs)):
                print(json.dumps({
                    "name": f"equalize, regions of {kernel_shape}, against {against}",
                    "value": round(ours, 1), "unit": "Mvoxel/s of CPU", "against": round(value, 2),
                    "ratio": round(ours / value, 1),
                }))
    share = 100 * depending_on_blocks(values[:96, :96, :96])
    print(json.dumps({"name": "voxels that depend on the blocks, scikit-image by blocks",
                      "value": round(share, 1), "unit": "%", "against": 0}))
    small, large = (peak_mb(size // 2), peak_mb(size))
    print(json.dumps({"name": "memory for eight times the voxels", "value": round(large), "unit": "MB",
                      "against": round(small), "ratio": round(large / small, 2)}))


def depending_on_blocks(values: np.ndarray) -> float:
    """Share of voxels that differ by more than a grey value between blocks of 32 and of 48."""
    a, b = (by_blocks(values, size).astype(int) for size in (32, 48))
    return float((np.abs(a - b) > 1).mean())


def by_blocks(values: np.ndarray, size: int, kernel: int = 32) -> np.ndarray:
    """Equalise every block of `size` with half a region around it; the mean where the volume ends."""
    made, around = np.empty_like(values), kernel // 2
    for block in BlockGrid(Frame((1.0, 1.0, 1.0)), values.shape, (size,) * 3).blocks():
        own = block.write_box
        fill = values[own.slices].mean()
        seen = np.pad(values, around, constant_values=int(fill))[own.shift((around,) * 3).grow(
            (around,) * 3).slices]
        result = equalize_adapthist(seen, kernel_size=kernel, clip_limit=CLIP_LIMIT)
        inner = Box((around,) * 3, own.shape).slices
        made[own.slices] = (result[inner] * 255).astype(np.uint8)
    return made


def peak_mb(size: int) -> float:
    """Memory of a process that equalises a volume of noise, written block by block; MB."""
    command = [sys.executable, __file__, "--size", str(size), "--memory"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def equalize_noise(size: int) -> None:
    """Equalise noise in this process, and print its memory at the peak; MB."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Volume.create(f"{folder}/noise.zarr/raw", shape=(size,) * 3, dtype="uint8",
                            frame=Frame((10.0, 10.0, 10.0)), chunk_shape=(64,) * 3)
        for seed, box in enumerate(raw.chunks()):
            raw.write(box, np.random.default_rng(seed).integers(0, 256, box.shape, np.uint8))
        two_steps(raw, Path(folder), (64, 64, 64))
    # Not that of getrusage, which a process has from the one that started it.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    click.echo(int(status["VmHWM"].split()[0]) / 1e3)


if __name__ == "__main__":
    main()
