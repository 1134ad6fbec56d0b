"""Runs of one id along x: what most of a volume of labels is made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from em_blocks.geometry import Triple
from em_blocks.kernels.segmentation.pair_table import dense_labels, find_root

_CHUNK = 64  # voxels that are looked at together: most are of one id


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
    if rows.dtype == bool:
        rows = rows.view(np.uint8)
    return Runs(*_runs_of(rows, rows.dtype.type(0)))


@njit(cache=True, nogil=True)
def _runs_of(rows, background):
    found, n = np.empty((1024, 3), np.int64), 0
    nx = rows.shape[1]
    for r in range(len(rows)):
        if n + nx > len(found):
            found = _longer(found, n + nx)
        id, begin = background, 0
        for start in range(0, nx, _CHUNK):
            part = rows[r, start : start + _CHUNK]
            if _all_equal(part, id):
                continue
            for i in range(len(part)):
                if part[i] != id:
                    if id != background:
                        _set(found[n], id, r * nx + begin, start + i - begin)
                        n += 1
                    id, begin = part[i], start + i
        if id != background:
            _set(found[n], id, r * nx + begin, nx - begin)
            n += 1
    return found[:n, 0].copy(), found[:n, 1].copy(), found[:n, 2].copy()


@njit(cache=True, inline="always")
def _all_equal(part, id):
    """Return whether all voxels have the id: so plain that the compiler takes many at once."""
    differs = False
    for i in range(len(part)):
        differs |= part[i] != id
    return not differs


@njit(cache=True, inline="always")
def _set(row, id, first, length):
    row[0], row[1], row[2] = id, first, length


@njit(cache=True)
def _longer(found, least):
    longer = np.empty((max(2 * len(found), least), 3), np.int64)
    longer[: len(found)] = found
    return longer


def containing(runs: Runs, voxels: np.ndarray) -> np.ndarray:
    """Return the index of the run of each voxel, an index into the flat array, all of which have one."""
    return np.searchsorted(runs.first, voxels, side="right") - 1


class RunParts(NamedTuple):
    """Connected parts of ids, told by their runs.

    Attributes
    ----------
    numbers : (n,) int32 array
        Of each run, the number of its part: 1, 2, ... in the order of first voxels.
    sizes, first : (m,) int64 arrays
        Of each part, its voxels, and the index of the first one in the flat array.
    """

    numbers: np.ndarray
    sizes: np.ndarray
    first: np.ndarray


def connect_runs(runs: Runs, shape: Triple, *, by_corners: bool) -> RunParts:
    """Return the connected parts of ids in an array of `shape` (z, y, x).

    Parameters
    ----------
    by_corners : bool
        Whether voxels are neighbours by edges and corners too (26), not by faces alone (6).

    References
    ----------
    Labelling by runs: He, Chao and Suzuki 2008, doi:10.1109/TIP.2008.919369.
    """
    numbers, n = dense_labels(_united(*runs, shape, int(by_corners)))
    return RunParts(numbers, *_sizes_and_first(numbers, n, runs.first, runs.lengths))


@njit(cache=True, nogil=True)
def _united(ids, first, lengths, shape, reach):
    """Union-find forest of the runs; every root is the first run of its part."""
    nz, ny, nx = shape
    starts, parent = _starts_of_rows(first, nz * ny, nx), np.arange(len(ids))
    for z in range(nz):
        for y in range(ny):
            row = z * ny + y
            if starts[row] == starts[row + 1]:
                continue
            if y > 0:
                _unite(row, row - 1, nx, starts, ids, first, lengths, parent, reach)
            if z > 0:
                for other in range(max(0, y - reach), min(ny, y + reach + 1)):
                    before = row - y - ny + other
                    _unite(row, before, nx, starts, ids, first, lengths, parent, reach)
    return parent


@njit(cache=True, nogil=True)
def _starts_of_rows(first, n_rows, nx):
    starts = np.zeros(n_rows + 1, np.int64)
    for i in range(len(first)):
        starts[first[i] // nx + 1] += 1
    for row in range(n_rows):
        starts[row + 1] += starts[row]
    return starts


@njit(cache=True, nogil=True)
def _unite(row, before, nx, starts, ids, first, lengths, parent, reach):
    """Unite the runs of a row with those of one before it that they touch."""
    shift, j, end = (row - before) * nx, starts[before], starts[before + 1]
    for i in range(starts[row], starts[row + 1]):
        begin = first[i] - shift  # as if it were in that row
        while j < end and first[j] + lengths[j] + reach <= begin:
            j += 1
        k = j
        while k < end and first[k] < begin + lengths[i] + reach:
            if ids[k] == ids[i]:
                a, b = find_root(parent, i), find_root(parent, k)
                parent[max(a, b)] = min(a, b)
            k += 1


@njit(cache=True, nogil=True)
def _sizes_and_first(numbers, n, first_of_runs, lengths):
    sizes, first = np.zeros(n, np.int64), np.empty(n, np.int64)
    for i in range(len(numbers)):
        part = numbers[i] - 1
        if sizes[part] == 0:
            first[part] = first_of_runs[i]
        sizes[part] += lengths[i]
    return sizes, first


@njit(cache=True, nogil=True)
def paint_runs(values: np.ndarray, first: np.ndarray, lengths: np.ndarray, new: np.ndarray) -> None:
    """Give all voxels of runs the value of their run.

    Parameters
    ----------
    values : (m,) array
        Flat; is changed.
    first, lengths : (n,) int64 arrays
        As in `Runs`.
    new : (n,) array
    """
    for i in range(len(first)):
        run = values[first[i] : first[i] + lengths[i]]
        for k in range(len(run)):
            run[k] = new[i]


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
