"""Region adjacency graph: which fragments touch, and what the affinities between them sum to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from em_blocks.kernels.segmentation.neighborhood import Neighborhood
from em_blocks.kernels.segmentation.pair_table import doubled, pair_key, place


class RegionGraph(NamedTuple):
    """Edges of a region graph, sorted by (u, v), u < v. All sums are exact integers.

    Attributes
    ----------
    u, v : (n,) int array
        Fragments.
    contact : (n, 3) int64 array
        Faces between voxels of both, across z, y, x.
    direct : (n,) int64 array
        Sum of the affinities over those faces.
    long_range : (n,) int64 array
        Sum of the long-range affinities between both.
    long_range_pairs : (n,) int64 array
        Number of them.
    """

    u: np.ndarray
    v: np.ndarray
    contact: np.ndarray
    direct: np.ndarray
    long_range: np.ndarray
    long_range_pairs: np.ndarray


def region_graph(
    fragments: np.ndarray, affinities: np.ndarray, neighborhood: Neighborhood, *,
    begin: Sequence[int], complete: np.ndarray,
) -> RegionGraph:
    """Sums of the affinities between fragments, over the pairs whose later voxel is counted.

    Graphs of boxes that share no counted voxel add up to the graph of the whole.

    Parameters
    ----------
    fragments : (z, y, x) int32 array
        Dense ids, 0 is none.
    affinities : (c, z, y, x) uint16 array
        As from `em_blocks.kernels.segmentation.neighborhood.to_previous`.
    begin : (3,) ints
        First counted voxel; what lies before is context.
    complete : (n_fragments + 1,) bool array
        Fragments that lie in the counted voxels with all of theirs. Two of them that do not touch
        here touch nowhere, and get no edge.

    Returns
    -------
    RegionGraph
        With edges without contact only where one fragment is not complete.

    Raises
    ------
    ValueError
        If shapes do not fit, or ids are negative or beyond `complete`.
    """
    if affinities.shape != (len(neighborhood.shifts), *fragments.shape):
        raise ValueError(
            f"affinities {affinities.shape} must be ({len(neighborhood.shifts)}, *{fragments.shape})"
        )
    if fragments.min(initial=0) < 0 or fragments.max(initial=0) >= len(complete):
        raise ValueError(
            f"ids {fragments.min()}..{fragments.max()} must lie in 0..{len(complete) - 1}, as dense as "
            "`complete`"
        )
    shifts = np.abs(neighborhood.shifts).astype(np.int64)
    direct, far = neighborhood.direct, neighborhood.long_range
    keys, sums = _accumulate(
        np.ascontiguousarray(fragments, np.int32), affinities, shifts, np.array([*direct, *far]),
        np.asarray(begin, np.int64), complete,
    )
    taken = np.flatnonzero(keys)
    taken = taken[np.argsort(keys[taken])]
    keys, sums = keys[taken], sums[taken]
    return RegionGraph(
        u=(keys >> np.uint64(32)).astype(np.int64),
        v=(keys & np.uint64(0xFFFFFFFF)).astype(np.int64) - 1,
        contact=sums[:, :3].copy(), direct=sums[:, 3].copy(), long_range=sums[:, 4].copy(),
        long_range_pairs=sums[:, 5].copy(),
    )


@njit(cache=True, nogil=True)
def _accumulate(fragments, affinities, shifts, channels, begin, complete):
    """Direct channels come first: the edges that they make are those of pairs that touch."""
    nz, ny, nx = fragments.shape
    keys, sums, used = np.zeros(1 << 12, np.uint64), np.zeros((1 << 12, 6), np.int64), 0
    for n in range(len(channels)):
        c = channels[n]
        dz, dy, dx = shifts[c]
        for z in range(max(begin[0], dz), nz):
            for y in range(max(begin[1], dy), ny):
                for x in range(max(begin[2], dx), nx):
                    a, b = fragments[z, y, x], fragments[z - dz, y - dy, x - dx]
                    if a == b or a == 0 or b == 0:
                        continue
                    key = pair_key(a, b)
                    here = place(keys, key)
                    if keys[here] == 0:
                        if n >= 3 and complete[a] and complete[b]:
                            continue
                        if 2 * used > len(keys):
                            keys, sums = _doubled(keys, sums)
                            here = place(keys, key)
                        keys[here] = key
                        used += 1
                    if n < 3:
                        sums[here, n] += 1
                        sums[here, 3] += affinities[c, z, y, x]
                    else:
                        sums[here, 4] += affinities[c, z, y, x]
                        sums[here, 5] += 1
    return keys, sums


@njit(cache=True)
def _doubled(keys, sums):
    larger = doubled(keys)
    values = np.zeros((len(larger), sums.shape[1]), np.int64)
    for old in range(len(keys)):
        if keys[old] != 0:
            values[place(larger, keys[old])] = sums[old]
    return larger, values


def contact_histograms(
    fragments: np.ndarray, affinities: np.ndarray, neighborhood: Neighborhood, graph: RegionGraph, *,
    begin: Sequence[int], bins: int,
) -> np.ndarray:
    """Histograms of the direct affinities over the contact of every edge; they add up as sums do.

    Parameters
    ----------
    fragments, affinities, neighborhood, begin
        As for `region_graph`.
    graph : RegionGraph
        Its result.
    bins : int
        Equal parts of 0..1.

    Returns
    -------
    (n, bins) int32 array
    """
    shifts = np.abs(neighborhood.shifts).astype(np.int64)
    return _histograms(
        np.ascontiguousarray(fragments, np.int32), affinities, shifts,
        np.array(neighborhood.direct), np.asarray(begin, np.int64), graph.u, graph.v, bins,
    )


@njit(cache=True, nogil=True)
def _histograms(fragments, affinities, shifts, channels, begin, u, v, bins):
    size = 16
    while size < 2 * len(u):
        size *= 2
    keys, rows = np.zeros(size, np.uint64), np.empty(size, np.int32)
    for e in range(len(u)):
        key = pair_key(u[e], v[e])
        here = place(keys, key)
        keys[here], rows[here] = key, e
    result = np.zeros((len(u), bins), np.int32)
    nz, ny, nx = fragments.shape
    for c in channels:
        dz, dy, dx = shifts[c]
        for z in range(max(begin[0], dz), nz):
            for y in range(max(begin[1], dy), ny):
                for x in range(max(begin[2], dx), nx):
                    a, b = fragments[z, y, x], fragments[z - dz, y - dy, x - dx]
                    if a != b and a != 0 and b != 0:
                        row = rows[place(keys, pair_key(a, b))]
                        result[row, np.int64(affinities[c, z, y, x]) * bins // 65536] += 1
    return result
