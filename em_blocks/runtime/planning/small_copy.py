"""A job of several steps, made small: the same config on a few blocks of its volumes.

Later steps read what earlier ones write, so they cannot be tried on the volume itself before the
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
from em_blocks.volumes.stores import store

_KEPT = ("scale", "neighborhood")
"""Attributes that say what the values mean."""

_PIECE = 256
"""Voxels per axis that are in memory while a volume is copied."""


def small_copy(
    config: RunConfig, grid: BlockGrid, wanted: np.ndarray, *, blocks: int, levels: int, folder: Path
) -> RunConfig:
    """The config on copies of its volumes in `folder`, writing below it.

    Parameters
    ----------
    grid : BlockGrid
        Of the blocks of the first step.
    wanted : (n, 3) int array
        Blocks that the run does; the copy is made around the one in their middle.
    blocks : int
        How many blocks the copy has at least, where there are so many.
    levels : int
        Of super-blocks that the job has. The copy gets as many, of two by two blocks.
    """
    box = _neighbours(grid, wanted, blocks=blocks, levels=levels)
    roi = grid.frame.to_roi(box)
    values = config.model_dump(mode="json")
    for name in volume_fields(config):
        values[name] = _copy(getattr(config, name), roi, folder / "in.zarr" / name)
    values |= {"output": _moved(values["output"], folder), "run_dir": str(folder), "db_host": None}
    if levels > 1:
        values["super_block"] = (2, 2, 2)
    return type(config).from_dict(values)


def volume_fields(config: RunConfig) -> list[str]:
    """Keys of a config that name volumes which exist, other than what it makes."""
    return [
        name for name in type(config).model_fields
        if name not in config.operational | {"output"} and _is_volume(getattr(config, name))
    ]


def _is_volume(value: object) -> bool:
    if not isinstance(value, (str, VolumeInput)):
        return False
    path = path_of(value)
    return (is_url(path) or path.startswith("/")) and detect(path) is not None


def _neighbours(grid: BlockGrid, wanted: np.ndarray, *, blocks: int, levels: int) -> Box:
    """A box of whole blocks in the middle of what is wanted."""
    shape = _enough(grid.shape, blocks)
    if levels > 1:  # a row is the smallest box of so many levels
        axis = int(np.argmax(grid.shape))
        shape = tuple(min(n, 2**levels) if a == axis else 1 for a, n in enumerate(grid.shape))
    middle = wanted[np.abs(wanted - np.median(wanted, axis=0)).sum(axis=1).argmin()]
    first = [
        int(np.clip(m - s // 2, 0, n - s)) for m, s, n in zip(middle, shape, grid.shape, strict=True)
    ]
    last = tuple(f + s - 1 for f, s in zip(first, shape, strict=True))
    return Box.between(grid.block(tuple(first)).write_box.offset, grid.block(last).write_box.end)


def _enough(available: Triple, blocks: int) -> Triple:
    """The most compact box of at least so many blocks."""
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
        attributes={name: source.attributes[name] for name in _KEPT if name in source.attributes},
    )
    piece = tuple(c * max(1, _PIECE // c) for c in made.chunk_shape)
    for block in BlockGrid(made.frame, made.shape, piece).blocks():
        made.write(block.write_box, source.read(block.write_box.shift(box.offset)))
    return str(target)


def check_scratch(nbytes: float) -> None:
    """Raise `ConfigError` if so many bytes do not fit where temporary files go."""
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if nbytes > 0.9 * free:
        raise ConfigError(
            f"Trying blocks of this config takes {nbytes / 1e9:.3g} GB for a while, and {folder} has "
            f"{free / 1e9:.3g} GB free. Let the environment variable TMPDIR name a folder on a larger "
            "disk, or plan without times: --no-probe."
        )


def _moved(output: str, folder: Path) -> str:
    """Where `output` lies in `folder`, with the name of its container."""
    container = store.container(output)
    name = store.split_parent(container)[1]
    return str(folder / "out" / name) + output.removeprefix(container)
