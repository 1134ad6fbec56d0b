"""Measures of objects - voxels, centre, bounding box - from those of their parts in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from em_blocks.geometry import Triple
from em_blocks.kernels.components.runs import find_runs


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
    ids, member = np.unique(runs.ids, return_inverse=True)
    _, ny, nx = labels.shape
    row, x = np.divmod(runs.first, nx)
    first = np.stack([row // ny, row % ny, x], axis=1)
    last = first + np.stack([np.zeros_like(x), np.zeros_like(x), runs.lengths - 1], axis=1)
    shift = np.asarray(offset, np.int64)
    parts = Measures(
        runs.ids, runs.lengths, (first + last + 2 * shift) * runs.lengths[:, None] // 2, first + shift,
        last + 1 + shift,
    )
    return _merged(parts, ids, member)


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
