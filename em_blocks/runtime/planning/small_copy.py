"""A job of several steps, made small: the same config on a few blocks of its volumes.

Later steps read the outputs of earlier ones, so they cannot be tried on the volume itself before the
job has run. On a copy of a few neighbouring blocks, all of them can be.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path

import numpy as np

from em_blocks.config import VolumeInput, is_url, path_of
from em_blocks.errors import ConfigError
from em_blocks.geometry import BlockGrid, Box, Roi, Triple
from em_blocks.tasks.base import RunConfig
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import detect
from em_blocks.volumes.metadata.attributes import MEANINGS
from em_blocks.volumes.stores import store

_PIECE = 256
"""Voxels per axis that are in memory while a volume is copied."""


def small_copy(
    config: RunConfig, grid: BlockGrid, wanted: np.ndarray, *, blocks: int, folder: Path
) -> RunConfig:
    """Return the config on copies of its volumes in `folder`, writing below it.

    Parameters
    ----------
    grid : BlockGrid
        Of the blocks of the first step.
    wanted : (n, 3) int array
        Blocks that the run does; the copy is made around the one in their middle.
    blocks : int
        How many blocks the copy has at least, if the volume has them.
    """
    roi = grid.frame.to_roi(_neighbours(grid, wanted, blocks))
    values = config.model_dump(mode="json")
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name not in config.operational | {"output"} and is_volume(value):
            values[name] = _copy(value, roi, folder / "in.zarr" / name)
    values |= {"output": _moved(values["output"], folder), "run_dir": str(folder), "db_host": None}
    return type(config).from_dict(values)


def is_volume(value: object) -> bool:
    """Tell whether the value of a key of a config names a volume that exists."""
    if not isinstance(value, (str, VolumeInput)):
        return False
    path = path_of(value)
    return (is_url(path) or path.startswith("/")) and detect(path) is not None


def _neighbours(grid: BlockGrid, wanted: np.ndarray, blocks: int) -> Box:
    """Return a box of whole blocks in the middle of those wanted."""
    shape = _enough(grid.shape, blocks)
    middle = wanted[np.abs(wanted - np.median(wanted, axis=0)).sum(axis=1).argmin()]
    first = [
        int(np.clip(m - s // 2, 0, n - s)) for m, s, n in zip(middle, shape, grid.shape, strict=True)
    ]
    last = tuple(f + s - 1 for f, s in zip(first, shape, strict=True))
    return Box.between(grid.block(tuple(first)).write_box.offset, grid.block(last).write_box.end)


def _enough(available: Triple, blocks: int) -> Triple:
    """Return the most compact shape of at least that many blocks."""
    shape = [1, 1, 1]
    while math.prod(shape) < blocks:
        growing = [a for a in (2, 1, 0) if shape[a] < available[a]]
        if not growing:
            break
        shape[min(growing, key=lambda a: shape[a])] += 1
    return tuple(shape)


def _copy(path: str | VolumeInput, roi: Roi, target: Path) -> str:
    source = Volume.open(path)
    box = source.frame.enclosing_box(roi).intersect(source.box)
    check_scratch(box.size * (source.channels or 1) * source.dtype.itemsize)
    made = Volume.create(
        str(target), shape=box.shape, dtype=source.dtype, channels=source.channels,
        frame=type(source.frame)(source.frame.voxel_size, source.frame.to_roi(box).offset),
        chunk_shape=tuple(min(c, s) for c, s in zip(source.chunk_shape, box.shape, strict=True)),
        attributes={name: source.attributes[name] for name in MEANINGS if name in source.attributes},
    )
    piece = tuple(c * max(1, _PIECE // c) for c in made.chunk_shape)
    for block in BlockGrid(made.frame, made.shape, piece).blocks():
        made.write(block.write_box, source.read(block.write_box.shift(box.offset)))
    return str(target)


def check_scratch(nbytes: float) -> None:
    """Raise `ConfigError` if `nbytes` do not fit where temporary files go."""
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if nbytes > 0.9 * free:
        raise ConfigError(
            f"Trying blocks of this config takes {nbytes / 1e9:.3g} GB for a while, and {folder} has "
            f"{free / 1e9:.3g} GB free. Let the environment variable TMPDIR name a folder on a larger "
            "disk, or plan without times: --no-probe."
        )


def _moved(output: str, folder: Path) -> str:
    """Return where `output` lies in `folder`, with the name of its container."""
    container = store.container(output)
    name = store.split_parent(container)[1]
    return str(folder / "out" / name) + output.removeprefix(container)
