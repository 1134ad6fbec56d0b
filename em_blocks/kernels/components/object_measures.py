"""Measures of objects - voxels, centre, bounding box - from those of their parts in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from em_blocks.geometry import Triple
from em_blocks.kernels.components.numbering import number_ids
from em_blocks.kernels.components.runs import Runs, find_runs


class Measures(NamedTuple):
    """Objects, or their parts in a block, by ascending id.

    Attributes
    ----------
    id, voxels : (n,) int64 arrays
    sums : (n, 3) int64 array
        Sums of the indices (z, y, x) of their voxels.
    begin, end : (n, 3) int64 arrays
        Of their bounding boxes (z, y, x); the end is excluded.
    """

    id: np.ndarray
    voxels: np.ndarray
    sums: np.ndarray
    begin: np.ndarray
    end: np.ndarray


def measure_objects(labels: np.ndarray, offset: Triple) -> Measures:
    """Measure the objects of a block.

    Parameters
    ----------
    labels : (z, y, x) integer array
        Ids below 2**63; 0 is background.
    offset : (3,) int
        Index of the first voxel.
    """
    runs = find_runs(labels)
    return measure_runs(runs, *number_ids(runs.ids), labels.shape, offset)


def measure_runs(
    runs: Runs, ids: np.ndarray, member: np.ndarray, shape: Triple, offset: Triple
) -> Measures:
    """Measure the objects of a block from its runs.

    Parameters
    ----------
    ids, member : int64 arrays
        As `number_ids` returns them.
    shape, offset : (3,) int
        Voxels (z, y, x) of the block, and the index of its first one.
    """
    voxels, sums, begin, end = _measured(runs.first, runs.lengths, member, len(ids), shape)
    shift = np.asarray(offset, np.int64)
    return Measures(ids, voxels, sums + voxels[:, None] * shift, begin + shift, end + shift)


@njit(cache=True, nogil=True)
def _measured(first, lengths, member, n, shape):
    voxels, sums = np.zeros(n, np.int64), np.zeros((n, 3), np.int64)
    begin, end = np.full((n, 3), np.iinfo(np.int64).max), np.zeros((n, 3), np.int64)
    for i in range(len(first)):
        object, length = member[i], lengths[i]
        row, x = first[i] // shape[2], first[i] % shape[2]
        z, y = row // shape[1], row % shape[1]
        voxels[object] += length
        sums[object, 0] += length * z
        sums[object, 1] += length * y
        sums[object, 2] += length * x + length * (length - 1) // 2
        for axis, a, b in ((0, z, z + 1), (1, y, y + 1), (2, x, x + length)):
            begin[object, axis] = min(begin[object, axis], a)
            end[object, axis] = max(end[object, axis], b)
    return voxels, sums, begin, end


def merge_measures(parts: Sequence[Measures]) -> Measures:
    """Return the measures of whole objects from those of their parts, in any order of blocks."""
    id, voxels, sums, begin, end = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    ids, member = np.unique(id, return_inverse=True)
    return _merged(Measures(id, voxels, sums, begin, end), ids, member)


def _merged(parts: Measures, ids: np.ndarray, member: np.ndarray) -> Measures:
    """Return the measures of the objects `ids`; of which each part is, `member` says."""
    n, highest = len(ids), np.iinfo(np.int64).max
    found = Measures(
        ids, np.zeros(n, np.int64), np.zeros((n, 3), np.int64), np.full((n, 3), highest),
        np.zeros((n, 3), np.int64),
    )
    np.add.at(found.voxels, member, parts.voxels)
    np.add.at(found.sums, member, parts.sums)
    np.minimum.at(found.begin, member, parts.begin)
    np.maximum.at(found.end, member, parts.end)
    return found
