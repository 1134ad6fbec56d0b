"""Connected components of few voxels in a large array, without an array of labels.

What is not background is kept as a list of voxels: indices into the flat array, in raster order. Time
beyond one look at every voxel, and memory beyond the array itself, depend on the length of that list.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from em_blocks.kernels.segmentation.pair_table import dense_labels, find_root

_CHUNK = 128  # voxels of a row that are looked at together: most hold nothing


class Groups(NamedTuple):
    """Lists of voxels.

    Attributes
    ----------
    voxels : (m,) int64 array
        The lists one after the other: indices into the flat array.
    starts : (n + 1,) int64 array
        List i is ``voxels[starts[i]:starts[i + 1]]``.
    """

    voxels: np.ndarray
    starts: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Length of every list: (n,) int64."""
        return np.diff(self.starts)

    @property
    def numbers(self) -> np.ndarray:
        """List of every voxel: (m,) int64."""
        return np.repeat(np.arange(len(self.starts) - 1), self.sizes)

    def select(self, rows: np.ndarray) -> Groups:
        """The lists of a mask or of indices."""
        rows = np.arange(len(self.starts) - 1)[rows]
        sizes = self.sizes[rows]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        places = np.repeat(self.starts[rows] - starts[:-1], sizes) + np.arange(starts[-1])
        return Groups(self.voxels[places], starts)


@njit(cache=True, nogil=True)
def voxels_above(values: np.ndarray, limit: Any) -> np.ndarray:
    """Voxels whose value is larger than `limit`.

    Parameters
    ----------
    values : (z, y, x) array
        C-contiguous.
    limit : scalar of the same type

    Returns
    -------
    (m,) int64 array
        In raster order. Voxels that are nan are none of them.
    """
    nz, ny, nx = values.shape
    found, n = np.empty(1024, np.int64), 0
    for z in range(nz):
        for y in range(ny):
            row, first = values[z, y], (z * ny + y) * nx
            for begin in range(0, nx, _CHUNK):
                part = row[begin : begin + _CHUNK]
                largest = limit
                for i in range(len(part)):  # so plain that the compiler takes many voxels at once
                    if part[i] > largest:
                        largest = part[i]
                if not largest > limit:
                    continue
                if n + _CHUNK > len(found):
                    found = np.concatenate((found, np.empty_like(found)))
                for i in range(len(part)):
                    if part[i] > limit:
                        found[n] = first + begin + i
                        n += 1
    return found[:n].copy()


def connected(voxels: np.ndarray, shape: tuple[int, int, int]) -> Groups:
    """Connected components of voxels, neighbours by faces.

    Parameters
    ----------
    voxels : (m,) int64 array
        Indices into the flat array, in raster order.
    shape : (3,) ints

    Returns
    -------
    Groups
        In the order of first voxels; every list in raster order.
    """
    labels, n = dense_labels(_joined(voxels, shape[1], shape[2]))
    return grouped(labels - 1, voxels, n)


def grouped(numbers: np.ndarray, voxels: np.ndarray, n: int) -> Groups:
    """Lists of the voxels of each number 0, 1, ... n - 1, in the order in which they come."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(numbers, minlength=n))])
    return Groups(_sorted_by(numbers, voxels, starts), starts)


@njit(cache=True, nogil=True)
def _joined(voxels, ny, nx):
    """Union-find forest of voxels, joined with those before along x, y and z."""
    parent = np.arange(len(voxels))
    above = behind = 0
    for i in range(len(voxels)):
        here = voxels[i]
        row = here // nx
        if i > 0 and voxels[i - 1] == here - 1 and here != row * nx:
            _join(parent, i - 1, i)
        while voxels[above] < here - nx:
            above += 1
        if voxels[above] == here - nx and row % ny > 0:
            _join(parent, above, i)
        while voxels[behind] < here - ny * nx:
            behind += 1
        if voxels[behind] == here - ny * nx:
            _join(parent, behind, i)
    return parent


@njit(cache=True, inline="always")
def _join(parent, i, j):
    a, b = find_root(parent, i), find_root(parent, j)
    parent[max(a, b)] = min(a, b)


@njit(cache=True, nogil=True)
def _sorted_by(numbers, voxels, starts):
    place, ordered = starts.copy(), np.empty_like(voxels)
    for i in range(len(voxels)):
        ordered[place[numbers[i]]] = voxels[i]
        place[numbers[i]] += 1
    return ordered


@njit(cache=True, nogil=True)
def boxes(voxels: np.ndarray, starts: np.ndarray, ny: int, nx: int) -> np.ndarray:
    """Smallest boxes around lists of voxels: (n, 2, 3) int64, first voxel and end (excluded)."""
    found = np.empty((len(starts) - 1, 2, 3), np.int64)
    for group in range(len(starts) - 1):
        found[group, 0], found[group, 1] = np.iinfo(np.int64).max, -1
        for i in range(starts[group], starts[group + 1]):
            row = voxels[i] // nx
            point = row // ny, row % ny, voxels[i] - row * nx
            for axis in range(3):
                found[group, 0, axis] = min(found[group, 0, axis], point[axis])
                found[group, 1, axis] = max(found[group, 1, axis], point[axis] + 1)
    return found


@njit(cache=True, nogil=True)
def central(
    voxels: np.ndarray, starts: np.ndarray, ny: int, nx: int, voxel_size: np.ndarray
) -> np.ndarray:
    """The voxel of each list that is nearest to the centre of mass of all, of several the first.

    Sums are of whole numbers, so that the voxel does not depend on where the list lies.

    Parameters
    ----------
    voxels, starts : int64 arrays
        As in `Groups`.
    voxel_size : (3,) float64 array
        nm (z, y, x).

    Returns
    -------
    (n,) int64 array
        Indices into the flat array.
    """
    found = np.empty(len(starts) - 1, np.int64)
    for group in range(len(found)):
        points = coordinates(voxels[starts[group] : starts[group + 1]], ny, nx)
        n, sums = len(points), points.sum(axis=0)
        nearest = np.inf
        for i in range(n):
            squared = 0.0
            for axis in range(3):
                squared += ((n * points[i, axis] - sums[axis]) * voxel_size[axis]) ** 2
            if squared < nearest:
                found[group], nearest = voxels[starts[group] + i], squared
    return found


@njit(cache=True, nogil=True)
def coordinates(voxels: np.ndarray, ny: int, nx: int) -> np.ndarray:
    """(n, 3) int64 voxels (z, y, x) from indices into a flat array (z, ny, nx)."""
    points = np.empty((len(voxels), 3), np.int64)
    for i in range(len(voxels)):
        row = voxels[i] // nx
        points[i, 0], points[i, 1], points[i, 2] = row // ny, row % ny, voxels[i] - row * nx
    return points
