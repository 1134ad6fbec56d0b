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
    places = np.nonzero(dense)
    numbers = dense[places] - 1
    # Sums of float64 are exact: those of one block stay far below 2**53.
    sums = [np.bincount(numbers, weights=place, minlength=n) for place in places]
    voxels = np.bincount(numbers, minlength=n)
    boxes = ndimage.find_objects(dense, max_label=n)
    begin = np.array([[s.start for s in box] for box in boxes], np.int64).reshape(n, 3)
    end = np.array([[s.stop for s in box] for box in boxes], np.int64).reshape(n, 3)
    shift = np.asarray(offset, np.int64)
    inside = np.stack(sums, axis=1).astype(np.int64).reshape(n, 3)
    return Measures(ids, voxels, inside + voxels[:, None] * shift, begin + shift, end + shift)


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
