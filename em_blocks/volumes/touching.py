"""Overlap of block grids: the blocks of one grid that read given blocks of another."""

from __future__ import annotations

import numpy as np

from em_blocks.geometry import TOLERANCE_VOXELS, BlockGrid, Triple


def touching(grid: BlockGrid, context: Triple, other: BlockGrid, blocks: np.ndarray) -> np.ndarray:
    """Return the blocks of `grid` that read any of the marked blocks of `other`.

    Parameters
    ----------
    grid : BlockGrid
    context : (3,) int
        Voxels (z, y, x) of `grid` that a block reads around its own.
    other : BlockGrid
        Of any voxel size and offset; both lie in the same world.
    blocks : (z, y, x) bool array
        Over the blocks of `other`.

    Returns
    -------
    (z, y, x) bool array over the blocks of `grid`
    """
    if not blocks.any():
        return np.zeros(grid.shape, bool)
    # counts[i, j, k]: marked blocks before (i, j, k). Those in a box are a sum of eight of them, so
    # the cost is that of the two grids and not of their pairs.
    counts = np.zeros([n + 1 for n in blocks.shape], np.int64)
    counts[1:, 1:, 1:] = blocks.cumsum(0).cumsum(1).cumsum(2)
    ranges = [_range(grid, context, other, axis) for axis in range(3)]
    found = np.zeros(grid.shape, np.int64)
    for corner in np.ndindex(2, 2, 2):
        sign = (-1) ** (3 - sum(corner))
        found += sign * counts[np.ix_(*(ranges[axis][end] for axis, end in enumerate(corner)))]
    return found > 0


def _range(
    grid: BlockGrid, context: Triple, other: BlockGrid, axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and last (excluded) block of `other` along an axis, for every block of `grid`."""
    size, step = grid.frame.voxel_size[axis], grid.block_shape[axis]
    begin = np.arange(grid.shape[axis]) * step
    end = np.minimum(begin + step, grid.volume_shape[axis])
    other_size = other.frame.voxel_size[axis]
    shift = grid.frame.offset[axis] - other.frame.offset[axis]
    slack = TOLERANCE_VOXELS * min(size, other_size)
    nm = other_size * other.block_shape[axis]
    first = np.floor(((begin - context[axis]) * size + shift + slack) / nm)
    last = np.ceil(((end + context[axis]) * size + shift - slack) / nm)
    n = other.shape[axis]
    first = first.clip(0, n).astype(np.int64)
    return first, np.maximum(last.clip(0, n).astype(np.int64), first)
