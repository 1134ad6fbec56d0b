"""Partners as two CSV files of voxels: ``<stem>_pre.csv`` and ``<stem>_post.csv``.

Row i of both is one pair: the index (z, y, x) of a voxel at the presynaptic site, and of one at
the postsynaptic site. There is no header and nothing else. Such files exist for the PyTorch
version of Synful (Heinze-lab/synful_312), there with indices counted from the origin of the world.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from em_blocks.errors import SynapseFileError
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.kernels.transforms.positions import as_voxels
from em_blocks.volumes.synapse_files.checks import finite, malformed, table_of

_SIDES = ("pre", "post")


def read(
    path: Path, *, voxel_size: Sequence[float] | None = None,
    offset: Sequence[float] = (0.0, 0.0, 0.0),
) -> Synapses:
    """Read partners of the two files, of which `path` is any; ids are the numbers of the rows, from 0.

    Parameters
    ----------
    voxel_size : (3,) float
        nm (z, y, x).
    offset : (3,) float
        World position of the corner of voxel (0, 0, 0), nm (z, y, x). A position is that of the
        centre of its voxel.

    Raises
    ------
    SynapseFileError
        Without a voxel size, if a row is malformed, or if the files do not have as many rows.
    """
    voxel_size = _checked(path, voxel_size)
    sites = {side: _voxels(_file(path, side)) for side in _SIDES}
    lengths = [len(voxels) for voxels in sites.values()]
    if lengths[0] != lengths[1]:
        raise SynapseFileError(
            f"{_file(path, 'pre')} has {lengths[0]} rows and {_file(path, 'post')} has {lengths[1]}, "
            "but row i of both is one pair of partners. One of them was cut off, or belongs to another."
        )
    columns = {
        side: np.asarray(offset) + (voxels + 0.5) * voxel_size for side, voxels in sites.items()
    }
    return table_of(path, {"id": range(lengths[0]), **columns})


def write(
    path: Path, synapses: Synapses, *, voxel_size: Sequence[float] | None = None,
    offset: Sequence[float] = (0.0, 0.0, 0.0),
) -> None:
    """Write the voxels that hold the sites; ids, scores and all else are lost."""
    size = _checked(path, voxel_size).tolist()
    for side in _SIDES:
        voxels = as_voxels(getattr(synapses, side), voxel_size=size, offset=offset)
        with open(_file(path, side), "w", newline="") as file:
            csv.writer(file).writerows(np.floor(voxels).astype(np.int64).tolist())


def _checked(path: Path, voxel_size: Sequence[float] | None) -> np.ndarray:
    if voxel_size is None or len(voxel_size) != 3 or not (np.asarray(voxel_size) > 0).all():
        raise SynapseFileError(
            f"{path} holds indices of voxels, so their size is needed to place them in the world: "
            f"got {voxel_size}, needed is a voxel_size of three positive numbers, nm (z, y, x), and "
            "the offset of the volume if indices count from its first voxel."
        )
    return np.asarray(voxel_size, float)


def _file(path: Path, side: str) -> Path:
    """Return the file of one side beside the one of any side."""
    stem = path.name[: path.name.rindex("_")]
    return path.with_name(f"{stem}_{side}{path.suffix}")


def _voxels(path: Path) -> np.ndarray:
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [_voxel(path, number, row) for number, row in enumerate(csv.reader(file)) if row]
    return np.array(rows, np.float64).reshape(-1, 3)


def _voxel(path: Path, number: int, row: list[str]) -> list[float]:
    if len(row) != 3:
        raise malformed(path, number, f"it has {len(row)} cells, but z, y, x are needed")
    try:
        voxel = [finite(cell.strip()) for cell in row]
    except ValueError as error:
        raise malformed(path, number, f"{', '.join(row):.60} {error}") from error
    if not all(index.is_integer() for index in voxel):
        raise malformed(path, number, f"{voxel} is no voxel: an index is a whole number")
    return voxel
