"""Speed of reading and writing volumes, against zarr-python with the same codec.

A generated EM volume (uint8) and its labels (uint64) in chunks of 64^3, written and read in blocks of
128^3 in one process. `Volume` writes durably (fsync) by tensorstore; zarr-python does not wait for the
disk.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import zarr
from numcodecs import Blosc

from em_blocks.geometry import Box, Frame
from em_blocks.kernels.synthetic.volume import phantom
from em_blocks.volumes import Volume

CHUNK, BLOCK = (64,) * 3, 128


def blocks(shape: tuple[int, ...]) -> list[Box]:
    corners = itertools.product(*(range(0, n, BLOCK) for n in shape))
    return [Box(corner, (BLOCK,) * 3).intersect(Box((0, 0, 0), shape)) for corner in corners]


def rate(values: np.ndarray, work: Callable[[Box], object]) -> float:
    """Mvoxel/s of `work` over all blocks."""
    start = time.perf_counter()
    for box in blocks(values.shape):
        work(box)
    return values.size / 1e6 / (time.perf_counter() - start)


def ours(folder: Path, values: np.ndarray) -> tuple[float, float]:
    """Write and read rate of `Volume`."""
    volume = Volume.create(str(folder / "ours.zarr/a"), shape=values.shape, dtype=values.dtype,
                           frame=Frame((10.0, 10.0, 10.0)), chunk_shape=CHUNK)
    written = rate(values, lambda box: volume.write(box, values[box.slices]))
    return written, rate(values, volume.read)


def theirs(folder: Path, values: np.ndarray) -> tuple[float, float]:
    """Write and read rate of zarr-python."""
    array = zarr.open(str(folder / "theirs.zarr"), mode="w", shape=values.shape, chunks=CHUNK,
                      dtype=values.dtype, compressor=Blosc("zstd", clevel=1, shuffle=1),
                      dimension_separator="/")

    def write(box: Box) -> None:
        array[box.slices] = values[box.slices]

    return rate(values, write), rate(values, lambda box: array[box.slices])


@click.command()
@click.option("--size", default=256, show_default=True, help="Voxels along each axis.")
def main(size: int) -> None:
    made = phantom((size,) * 3, voxel_size=(10, 10, 10), seed=5)
    for name, values in (("uint64 labels", made.neurons), ("uint8 EM", made.raw)):
        with tempfile.TemporaryDirectory() as folder:
            (write, read), (zarr_write, zarr_read) = (f(Path(folder), values) for f in (ours, theirs))
        for verb, value, against in (("read", read, zarr_read), ("write", write, zarr_write)):
            print(json.dumps({"name": f"{verb} {name}", "value": round(value), "unit": "Mvoxel/s",
                              "against": round(against), "ratio": round(value / against, 2)}))


if __name__ == "__main__":
    main()
