"""Watershed on the edges between voxels, with a rule for small basins."""

from __future__ import annotations

import numpy as np
from numba import njit

from em_blocks.kernels.segmentation.pair_table import (
    dense_labels,
    doubled,
    find_root,
    pair_key,
    place,
)


def watershed(
    affinities: np.ndarray, *, mask: np.ndarray, dimensions: int = 3, low: float = 0.0,
    high: float = 1.0, small: int = 0,
) -> np.ndarray:
    """Fragments: basins of steepest ascent on the edges, small ones joined to others.

    Every voxel is joined to the neighbour of its strongest edge. Voxels that share their strongest
    edge form a plateau, of which there are many where affinities are stored in a byte: it is one
    basin if nothing higher follows, and else every voxel goes the shortest way that does. Edges
    of at least `high` are a plateau of their own. After that basins are joined in the order of the
    strongest edge between them, while one of both has fewer than `small` voxels and the edge is at
    least `low`. A membrane of no thickness, between two voxels, is kept: edges are flooded, not
    voxels.

    Parameters
    ----------
    affinities : (3, z, y, x) float32 array
        To the voxel before along z, y, x, in 0..1.
    mask : (z, y, x) bool array
        Voxels that belong to fragments; the others are 0.
    dimensions : int
        3, or 2 for sections of their own (edges along z are not looked at).
    low, high : float
        Edges weaker than `low` never join, and of `low` itself only in joining small basins;
        edges of at least `high` always do.
    small : int
        Voxels.

    Returns
    -------
    (z, y, x) int32 array
        1, 2, ... in the order of first voxels; 0 outside of the mask.

    Raises
    ------
    ValueError
        If shapes do not fit, or there are 2^31 voxels or more.

    References
    ----------
    Zlateski and Seung 2015, arXiv:1505.00249.
    """
    if affinities.ndim != 4 or affinities.shape != (3, *mask.shape):
        raise ValueError(
            f"affinities {affinities.shape} and mask {mask.shape} must be (3, z, y, x) and (z, y, x)"
        )
    if mask.size >= 2**31:
        raise ValueError(f"{mask.size} voxels are too many; use smaller blocks")
    first = 0 if dimensions == 3 else 1
    affinities = np.ascontiguousarray(affinities, np.float32)
    basins, n = _basins(affinities, mask, first, np.float32(low), np.float32(high))
    if small > 0:
        u, v, saddle = _saddles(basins, affinities, first, np.float32(low))
        order = np.lexsort((v, u, -saddle))  # equal saddles in the order of ids
        size = np.bincount(basins.ravel(), minlength=n + 1)
        parent = _join_small(u[order], v[order], size, small)
        joined, _ = dense_labels(parent[1:] - 1)
        basins = np.concatenate(([0], joined)).astype(np.int32)[basins]
    return basins


@njit(cache=True, nogil=True)
def _basins(affinities, mask, first, low, high):
    nz, ny, nx = mask.shape
    inside = mask.ravel()
    best = _strongest(affinities, mask, inside, first, low, high)
    parent = np.empty(len(best), np.int32)
    for i in range(len(parent)):
        parent[i] = i
    # Upwards where the strongest edge leads to a voxel with a stronger one. What else shares that
    # edge drains there, the nearest first.
    drained, level = np.zeros(len(best), np.bool_), np.zeros(len(best), np.bool_)
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                i = (z * ny + y) * nx + x
                if best[i] < 0:
                    continue
                for axis in range(first, 3):
                    edge, j = _edge(affinities, inside, z, y, x, axis, 0)
                    if j < 0:
                        continue
                    edge = min(edge, high)
                    if edge == best[i] and edge == best[j]:
                        level[i] = level[j] = True
                    elif edge == best[i] and not drained[i]:
                        drained[i] = True
                        _join(parent, i, j)
                    elif edge == best[j] and not drained[j]:
                        drained[j] = True
                        _join(parent, j, i)
    queue = np.flatnonzero(drained & level).astype(np.int32)
    at, end = 0, len(queue)
    while at < end:
        i = queue[at]
        at += 1
        for axis in range(first, 3):
            for side in range(2):
                edge, j = _edge(
                    affinities, inside, i // (ny * nx), i // nx % ny, i % nx, axis, side
                )
                if j >= 0 and not drained[j] and min(edge, high) == best[i] == best[j]:
                    _join(parent, i, j)
                    drained[j] = True
                    if end == len(queue):
                        queue = np.concatenate((queue, np.empty_like(queue)))
                    queue[end] = j
                    end += 1
    # What was not reached lies on plateaus that lead nowhere.
    for i in np.flatnonzero(level & ~drained):
        for axis in range(first, 3):
            edge, j = _edge(affinities, inside, i // (ny * nx), i // nx % ny, i % nx, axis, 0)
            if j >= 0 and min(edge, high) == best[i] == best[j]:
                _join(parent, i, j)
    labels = np.zeros(len(parent), np.int32)
    n = 0
    for i in range(len(parent)):
        if inside[i]:
            root = find_root(parent, i)  # the first voxel of its set
            if root == i:
                n += 1
                labels[i] = n
            else:
                labels[i] = labels[root]
    return labels.reshape(mask.shape), n


@njit(cache=True, nogil=True)
def _strongest(affinities, mask, inside, first, low, high):
    """Strongest edge of every voxel, at most `high`; -1 if it has none that joins."""
    nz, ny, nx = mask.shape
    best = np.full(len(inside), -1, np.float32)
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                i = (z * ny + y) * nx + x
                if inside[i]:
                    for axis in range(first, 3):
                        edge, j = _edge(affinities, inside, z, y, x, axis, 0)
                        if j >= 0 and (edge > low or edge >= high):
                            edge = min(edge, high)
                            best[i], best[j] = max(best[i], edge), max(best[j], edge)
    return best


@njit(cache=True, inline="always")
def _edge(affinities, inside, z, y, x, axis, side):
    """Affinity to the voxel before (side 0) or after, and its number; -1 if there is none."""
    _, nz, ny, nx = affinities.shape
    i = (z * ny + y) * nx + x
    dz, dy, dx = axis == 0, axis == 1, axis == 2
    step = (ny * nx, nx, 1)[axis]
    if side == 0:
        if (z, y, x)[axis] > 0 and inside[i - step]:
            return affinities[axis, z, y, x], i - step
    elif (z, y, x)[axis] + 1 < (nz, ny, nx)[axis] and inside[i + step]:
        return affinities[axis, z + dz, y + dy, x + dx], i + step
    return np.float32(0), -1


@njit(cache=True, inline="always")
def _join(parent, i, j):
    a, b = find_root(parent, i), find_root(parent, j)
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


@njit(cache=True, nogil=True)
def _saddles(basins, affinities, first, low):
    """Strongest edge between every two touching basins."""
    nz, ny, nx = basins.shape
    keys, saddle, used = np.zeros(1 << 12, np.uint64), np.zeros(1 << 12, np.float32), 0
    for axis in range(first, 3):
        dz, dy, dx = axis == 0, axis == 1, axis == 2
        for z in range(dz, nz):
            for y in range(dy, ny):
                for x in range(dx, nx):
                    a, b = basins[z, y, x], basins[z - dz, y - dy, x - dx]
                    edge = affinities[axis, z, y, x]
                    if a == b or a == 0 or b == 0 or edge < low:
                        continue
                    key = pair_key(a, b)
                    here = place(keys, key)
                    if keys[here] == 0:
                        if 2 * used > len(keys):
                            larger = doubled(keys)
                            values = np.zeros(len(larger), np.float32)
                            for old in range(len(keys)):
                                if keys[old] != 0:
                                    values[place(larger, keys[old])] = saddle[old]
                            keys, saddle = larger, values
                            here = place(keys, key)
                        keys[here] = key
                        used += 1
                    saddle[here] = max(saddle[here], edge)
    taken = keys != 0
    found = keys[taken]
    u = (found >> np.uint64(32)).astype(np.int32)
    v = ((found & np.uint64(0xFFFFFFFF)) - np.uint64(1)).astype(np.int32)
    return u, v, saddle[taken]


@njit(cache=True, nogil=True)
def _join_small(u, v, size, small):
    parent = np.arange(len(size)).astype(np.int32)
    for e in range(len(u)):
        a, b = find_root(parent, u[e]), find_root(parent, v[e])
        if a != b and (size[a] < small or size[b] < small):
            a, b = min(a, b), max(a, b)
            parent[b] = a
            size[a] += size[b]
    return parent
