"""Runs of one id along x: what most of a volume of labels is made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit


class Runs(NamedTuple):
    """Runs of ids other than 0, in raster order.

    Attributes
    ----------
    ids : (n,) int64 array
    first : (n,) int64 array
        Index of the first voxel in the flat array.
    lengths : (n,) int64 array
        Voxels; a run ends with its row.
    """

    ids: np.ndarray
    first: np.ndarray
    lengths: np.ndarray


def find_runs(labels: np.ndarray) -> Runs:
    """Return the runs of labels (z, y, x), ids below 2**63."""
    rows = np.ascontiguousarray(labels).reshape(-1, labels.shape[2])
    return Runs(*_filled(rows, _count(rows)))


@njit(cache=True, nogil=True)
def _count(rows):
    n = 0
    for row in rows:
        before = row[0]
        n += before != 0
        for id in row[1:]:
            n += (id != before) & (id != 0)
            before = id
    return n


@njit(cache=True, nogil=True)
def _filled(rows, n):
    ids, first, lengths = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    nx, k = rows.shape[1], 0
    for r in range(len(rows)):
        row, x = rows[r], 0
        while x < nx:
            id, begin = row[x], x
            x += 1
            while x < nx and row[x] == id:
                x += 1
            if id != 0:
                ids[k], first[k], lengths[k] = id, r * nx + begin, x - begin
                k += 1
    return ids, first, lengths


@njit(cache=True, nogil=True)
def sizes_and_first(numbers: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of each number 1 .. n, and the index of its first voxel: two (n,) int64 arrays.

    Parameters
    ----------
    numbers : (m,) integer array
        Flat; 0 is background.
    """
    sizes, first = np.zeros(n + 1, np.int64), np.full(n + 1, -1)
    for i in range(len(numbers)):
        number = numbers[i]
        if number != 0:
            if sizes[number] == 0:
                first[number] = i
            sizes[number] += 1
    return sizes[1:], first[1:]


@njit(cache=True, nogil=True)
def replaced(labels: np.ndarray, old: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replace ids by others; 0 stays 0.

    Parameters
    ----------
    labels : (m,) integer array
        Flat.
    old, new : (n,) int64 arrays
        Ids, ascending, and what they become.

    Returns
    -------
    replaced : (m,) uint64 array
    missing : (1,) int64 array
        An id that is not among the old ones; 0 if there is none.
    """
    found, missing = np.empty(len(labels), np.uint64), np.zeros(1, np.int64)
    before, becomes = np.int64(0), np.int64(0)
    for i in range(len(labels)):
        id = np.int64(labels[i])
        if id != before:
            before, becomes = id, np.int64(0)
            place = np.searchsorted(old, id)
            if place < len(old) and old[place] == id:
                becomes = new[place]
            elif id != 0:
                missing[0] = id
        found[i] = becomes
    return found, missing
