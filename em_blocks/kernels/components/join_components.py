"""Joining the parts of blocks over the whole volume, and which of them stay."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


class JoinedParts(NamedTuple):
    """The connected parts of the whole volume.

    Attributes
    ----------
    member : (m,) int array
        For each part of a block, the part of the volume that it belongs to.
    ids, sizes, first : (n,) int64 arrays
        Id, voxels, and the index of the first voxel in the flat volume. None of these knows where
        the blocks were cut.
    """

    member: np.ndarray
    ids: np.ndarray
    sizes: np.ndarray
    first: np.ndarray


def join_parts(
    ids: np.ndarray, sizes: np.ndarray, first: np.ndarray, edges: np.ndarray
) -> JoinedParts:
    """Unite the parts of blocks that touch across borders.

    Parameters
    ----------
    ids, sizes, first : (m,) int64 arrays
        Of each part of a block: id, voxels, index of the first voxel in the flat volume.
    edges : (k, 2) int array
        Rows of two parts that touch.
    """
    ones = np.ones(len(edges), np.int8)
    graph = coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(len(ids), len(ids)))
    n, member = connected_components(graph, directed=False)
    joined_sizes, joined_ids = np.zeros(n, np.int64), np.zeros(n, np.int64)
    joined_first = np.full(n, np.iinfo(np.int64).max)
    np.add.at(joined_sizes, member, sizes)
    np.minimum.at(joined_first, member, first)
    joined_ids[member] = ids
    return JoinedParts(member, joined_ids, joined_sizes, joined_first)


def part_ids(
    ids: np.ndarray, sizes: np.ndarray, first: np.ndarray, *, fraction: float, min_size: int
) -> np.ndarray:
    """The id that each part gets, so that no id has two parts.

    The largest part keeps the id, the one with the earlier first voxel of two equal ones. Another
    part becomes an object of its own if it has at least `fraction` of all voxels of the id and at
    least `min_size` voxels; otherwise it is erased. An id of fewer than `min_size` voxels in all is
    erased. New ids follow the largest id there is, in the order of old id and first voxel: they
    depend on the volume alone.

    Parameters
    ----------
    ids, sizes, first : (n,) int64 arrays
        As in `JoinedParts`.

    Returns
    -------
    (n,) int64 array
        0 for parts that are erased.

    Raises
    ------
    OverflowError
        If a new id would be 2^63 or larger.
    """
    result = np.zeros(len(ids), np.int64)
    if len(ids) == 0:
        return result
    order = np.lexsort((first, -sizes, ids))
    begins = np.flatnonzero(np.diff(ids[order], prepend=ids[order[0]] - 1))
    largest = np.zeros(len(ids), bool)
    largest[order[begins]] = True
    totals = np.empty(len(ids), np.int64)
    totals[order] = np.repeat(
        np.add.reduceat(sizes[order], begins), np.diff(begins, append=len(ids))
    )
    kept = largest & (totals >= min_size)
    split = ~largest & (sizes >= min_size) & (sizes / totals >= fraction)
    result[kept] = ids[kept]
    new = np.flatnonzero(split)
    if int(ids.max()) + len(new) > np.iinfo(np.int64).max:
        raise OverflowError(
            f"{len(new)} new ids are needed above the largest one, {ids.max()}, but ids end at 2^63 - 1"
        )
    result[new[np.lexsort((first[new], ids[new]))]] = ids.max() + 1 + np.arange(len(new))
    return result
