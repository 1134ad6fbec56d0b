"""Grown mitochondria and maps of them as volumes, block by block."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from em_blocks.errors import VolumeError
from em_blocks.geometry import Block, BlockGrid, Frame, Triple, triple
from em_blocks.kernels.synthetic.instance_maps import (
    USUAL,
    InstanceMaps,
    Quality,
    instance_maps,
    maps_context,
)
from em_blocks.kernels.synthetic.mitochondria import (
    Mitochondria,
    grow_mitochondria,
    paint_mitochondria,
)
from em_blocks.volumes import Volume

LABELS = "mitochondria"
ONE = 255
"""Stored value of a map that means 1.0."""

BLOCK_SHAPE, CHUNK_SHAPE = (32, 512, 512), (16, 128, 128)


def write_mitochondria(
    path: Path, *, shape: Triple, frame: Frame, seed: int, per_um3: float,
    quality: Quality = USUAL, block_shape: Triple = BLOCK_SHAPE,
) -> Mitochondria:
    """Grow mitochondria, and write their ids and maps into a folder; all or nothing.

    The folder gets the volumes ``mitochondria`` (uint64), and ``foreground``, ``contour`` and
    ``signed_distance`` (uint8, 255 is 1.0). They do not depend on the blocks. Memory: a block, and the
    spheres of all mitochondria.

    Raises
    ------
    VolumeError
        If `path` does not end in .zarr.
    """
    if path.suffix != ".zarr":
        raise VolumeError(
            f"{path} has no known format: mitochondria and their maps are several volumes, so the name "
            "should end in .zarr."
        )
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    grown = grow_mitochondria(np.multiply(shape, frame.voxel_size), seed=seed, per_um3=per_um3)
    volumes = dict(_volumes(partial, shape, frame))
    for block in BlockGrid(frame, shape, block_shape).blocks():
        labels, maps = mitochondria_in(block, grown, frame, quality)
        volumes[LABELS].write(block.write_box, labels)
        for name, values in maps._asdict().items():
            volumes[name].write(block.write_box, np.rint(values * ONE).astype(np.uint8))
    partial.rename(path)
    return grown


def mitochondria_in(
    block: Block, grown: Mitochondria, frame: Frame, quality: Quality
) -> tuple[np.ndarray, InstanceMaps]:
    """Return the ids (z, y, x) of a block, and its maps."""
    context = maps_context(frame.voxel_size, quality)
    seen = block.write_box.grow(context)
    labels = paint_mitochondria(grown, seen.offset, seen.shape, voxel_size=frame.voxel_size)
    maps = instance_maps(
        labels, voxel_size=frame.voxel_size, begin=seen.offset, seed=grown.seed, quality=quality
    )
    inner = block.write_box.relative_to(seen).slices
    return labels[inner], InstanceMaps(*(values[inner] for values in maps))


def _volumes(folder: Path, shape: Triple, frame: Frame) -> Iterator[tuple[str, Volume]]:
    chunk_shape = triple(map(min, zip(CHUNK_SHAPE, shape, strict=True)))
    for name in (LABELS, *InstanceMaps._fields):
        is_map = name != LABELS
        yield name, Volume.create(
            str(folder / name), shape=shape, dtype="uint8" if is_map else "uint64", frame=frame,
            chunk_shape=chunk_shape, attributes={"scale": ONE} if is_map else {"labels": True},
        )
