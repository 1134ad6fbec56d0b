"""Watershed on the edges between voxels, with a rule for small basins."""

from __future__ import annotations

import numpy as np
from numba import njit

from em_blocks.kernels.pairs import dense_labels, doubled, find_root, pair_key, place


def watershed(
    affinities: np.ndarray, *, mask: np.ndarray, dimensions: int = 3, low: float = 0.0,
    high: float = 1.0, small: int = 0,
) -> np.ndarray:
    """Fragments: basins of steepest ascent on the edges, small ones joined to others.

    Every voxel is joined to the neighbour of its strongest edge, then all voxels over edges of
    at least `high`. After that basins are joined in the order of the strongest edge between
    them, while one of both has fewer than `small` voxels and the edge is at least `low`. A
    membrane of no thickness, between two voxels, is kept: edges are flooded, not voxels.

    Parameters
    ----------
    affinities : (3, z, y, x) float32 array
        To the voxel before along z, y, x, in 0..1.
    mask : (z, y, x) bool array
        Voxels that belong to fragments; the others are 0.
    dimensions : int
        3, or 2 for sections of their own (edges along z are not looked at).
    low, high : float
        Edges weaker than `low` never join; edges of at least `high` always do.
    small : int
        Voxels.

    Returns
    -------
    (z, y, x) int32 array
        1, 2, ... in the order of first voxels; 0 outside of the mask.

    Raises
    ------
    ValueError
        If shapes do not fit.

    References
    ----------
    Zlateski and Seung 2015, arXiv:1505.00249.
    """
    if affinities.ndim != 4 or affinities.shape != (3, *mask.shape):
        raise ValueError(
            f"affinities {affinities.shape} and mask {mask.shape} must be (3, z, y, x) and (z, y, x)"
        )
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
    parent = np.arange(nz * ny * nx).astype(np.int32)
    steps = (ny * nx, nx, 1)
    inside = mask.ravel()
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                i = (z * ny + y) * nx + x
                if not inside[i]:
                    continue
                at, end = (z, y, x), (nz, ny, nx)
                best, target = low, i
                for axis in range(first, 3):
                    step = steps[axis]
                    if at[axis] > 0 and inside[i - step]:
                        edge = affinities[axis, z, y, x]
                        if edge > best:
                            best, target = edge, i - step
                        if edge >= high:
                            _join(parent, i, i - step)
                    if at[axis] + 1 < end[axis] and inside[i + step]:
                        edge = affinities[
                            axis, z + (axis == 0), y + (axis == 1), x + (axis == 2)
                        ]
                        if edge > best:
                            best, target = edge, i + step
                _join(parent, i, target)
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
