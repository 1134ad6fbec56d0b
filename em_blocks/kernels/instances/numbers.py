"""Number objects in the order of their first voxels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from em_blocks.kernels.components.runs import find_runs


class Sizes(NamedTuple):
    """Objects of a block.

    Attributes
    ----------
    ids, voxels : (n,) int64 arrays
    first : (n,) int64 array
        Index of the first voxel in a flat array.
    """

    ids: np.ndarray
    voxels: np.ndarray
    first: np.ndarray


def sizes_of(labels: np.ndarray) -> Sizes:
    """Return the objects of labels (z, y, x), by ascending id; 0 is background."""
    runs = find_runs(labels)
    ids, places, member = np.unique(runs.ids, return_index=True, return_inverse=True)
    voxels = np.zeros(len(ids), np.int64)
    np.add.at(voxels, member, runs.lengths)
    return Sizes(ids, voxels, runs.first[places])


def numbers_of(ids: np.ndarray, voxels: np.ndarray, first: np.ndarray, *, min_size: int) -> np.ndarray:
    """Return the number of each row's object: 1, 2, ... in the order of first voxels; 0 if too small.

    Parameters
    ----------
    ids, voxels, first : (m,) int64 arrays
        Of the objects in all blocks, as in `Sizes`; `first` counts in one flat array.
    min_size : int
        Voxels that an object has at least, all rows together.
    """
    objects, member = np.unique(ids, return_inverse=True)
    sizes, begin = np.zeros(len(objects), np.int64), np.full(len(objects), np.iinfo(np.int64).max)
    np.add.at(sizes, member, voxels)
    np.minimum.at(begin, member, first)
    kept = np.flatnonzero(sizes >= min_size)
    kept = kept[np.argsort(begin[kept])]
    numbers = np.zeros(len(objects), np.int64)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return numbers[member]
