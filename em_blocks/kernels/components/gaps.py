"""Gaps between objects: what the connected parts of the background touch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from em_blocks.geometry import Box, Triple

NOTHING = np.iinfo(np.int64).max
"""The lowest id that a part touches which touches no object."""


class Touched(NamedTuple):
    """What each part of the background touches by faces of voxels.

    The lowest and the highest id are enough to know whether it is one object, and those of two parts
    are known from those of each.

    Attributes
    ----------
    outside : (n,) bool array
        Whether a part touches the border of the volume.
    low, high : (n,) int64 arrays
        The lowest and the highest id of an object next to it; `NOTHING` and 0 without any.
    """

    outside: np.ndarray
    low: np.ndarray
    high: np.ndarray


def touched_by(
    numbers: np.ndarray, grown: np.ndarray, *, n_parts: int, box: Box, shape: Triple
) -> Touched:
    """Find what the parts of one block touch.

    Parameters
    ----------
    numbers : (z, y, x) integer array
        The parts 1..n_parts of the background in the block; 0 elsewhere.
    grown : (z + 2, y + 2, x + 2) integer array
        Ids of the block and one voxel around it; 0 is background.
    box : Box
        The block in the volume.
    shape : (3,) int
        Voxels of the volume.
    """
    low, high = np.full(n_parts + 1, NOTHING), np.zeros(n_parts + 1, np.int64)
    outside = np.zeros(n_parts + 1, bool)
    _meet(numbers, grown, low, high)
    for axis in range(3):
        if box.offset[axis] == 0:
            outside[np.take(numbers, 0, axis)] = True
        if box.end[axis] == shape[axis]:
            outside[np.take(numbers, -1, axis)] = True
    return Touched(outside[1:], low[1:], high[1:])


@njit(cache=True, nogil=True)
def _meet(numbers, grown, low, high):
    """Take the ids of objects into the lowest and the highest of the parts next to them."""
    nz, ny, nx = numbers.shape
    for z in range(-1, nz + 1):
        for y in range(-1, ny + 1):
            row = grown[z + 1, y + 1]
            for x in range(-1, nx + 1):
                if row[x + 1] == 0:
                    continue
                id = np.int64(row[x + 1])
                for axis in range(3):
                    for step in (-1, 1):
                        a = z + step * (axis == 0)
                        b = y + step * (axis == 1)
                        c = x + step * (axis == 2)
                        if 0 <= a < nz and 0 <= b < ny and 0 <= c < nx and numbers[a, b, c] > 0:
                            part = numbers[a, b, c]
                            low[part] = min(low[part], id)
                            high[part] = max(high[part], id)


def joined_touches(touched: Touched, member: np.ndarray, n: int) -> Touched:
    """Return what whole parts touch, from the parts in blocks.

    Parameters
    ----------
    member : (m,) int array
        For each part of a block, the part 0..n - 1 of the volume that it belongs to.
    """
    outside, low, high = np.zeros(n, bool), np.full(n, NOTHING), np.zeros(n, np.int64)
    np.logical_or.at(outside, member, touched.outside)
    np.minimum.at(low, member, touched.low)
    np.maximum.at(high, member, touched.high)
    return Touched(outside, low, high)
