"""Measures of objects - voxels, centre, bounding box - from those of their parts in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import fastremap
import numpy as np
from scipy import ndimage

from em_blocks.geometry import Triple


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
    ids, dense = fastremap.unique(labels, return_inverse=True)
    dense = dense.reshape(labels.shape) + (0 if ids[0] == 0 else 1)
    ids = ids[ids > 0].astype(np.int64)
    n = len(ids)
    voxels, sums = _sums(dense, n)
    boxes = ndimage.find_objects(dense, max_label=n)
    begin = np.array([[s.start for s in box] for box in boxes], np.int64).reshape(n, 3)
    end = np.array([[s.stop for s in box] for box in boxes], np.int64).reshape(n, 3)
    shift = np.asarray(offset, np.int64)
    return Measures(ids, voxels, sums + voxels[:, None] * shift, begin + shift, end + shift)


def _sums(dense: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Count the voxels of the objects 1..n, and add their indices (z, y, x), section by section."""
    voxels, sums = np.zeros(n + 1, np.int64), np.zeros((n + 1, 3), np.int64)
    rows, columns = (axis.ravel() for axis in np.indices(dense.shape[1:]))
    for z, section in enumerate(dense):
        numbers = section.ravel()
        counts = np.bincount(numbers, minlength=n + 1)
        voxels += counts
        sums[:, 0] += z * counts
        # Sums of float64 are exact: those of a section stay far below 2**53.
        for axis, place in ((1, rows), (2, columns)):
            found = np.bincount(numbers, weights=place, minlength=n + 1)
            sums[:, axis] += found.astype(np.int64)
    return voxels[1:], sums[1:]


def merge_measures(parts: Sequence[Measures]) -> Measures:
    """Return the measures of whole objects from those of their parts, in any order of blocks."""
    id, voxels, sums, begin, end = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    ids, member = np.unique(id, return_inverse=True)
    n, highest = len(ids), np.iinfo(np.int64).max
    found = Measures(
        ids, np.zeros(n, np.int64), np.zeros((n, 3), np.int64), np.full((n, 3), highest),
        np.zeros((n, 3), np.int64),
    )
    np.add.at(found.voxels, member, voxels)
    np.add.at(found.sums, member, sums)
    np.minimum.at(found.begin, member, begin)
    np.maximum.at(found.end, member, end)
    return found
