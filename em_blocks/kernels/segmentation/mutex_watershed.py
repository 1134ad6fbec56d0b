"""Mutex watershed: fragments from attractive and repulsive affinities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from em_blocks.kernels.segmentation.neighborhood import FULL, Neighborhood
from em_blocks.kernels.segmentation.pair_table import doubled, find_root, pair_key, place

_LEVELS = 1024
"""Strengths are sorted by counting, to this many levels; equal ones go in storage order."""


def mutex_watershed(
    affinities: np.ndarray, neighborhood: Neighborhood, *, mask: np.ndarray, direct_bias: float,
    long_range_bias: float, strides: Sequence[int] = (1, 1, 1), joined: np.ndarray | None = None,
) -> np.ndarray:
    """Fragments that long-range affinities hold apart.

    An edge with affinity + bias > 0 joins two voxels, one with less holds them apart; edges are
    taken in the order of ``|affinity + bias|``, and never undone.

    Parameters
    ----------
    affinities : (c, z, y, x) uint16 array
        As from `em_blocks.kernels.segmentation.neighborhood.to_previous`.
    mask : (z, y, x) bool array
        Voxels that belong to fragments; the others are 0.
    direct_bias, long_range_bias : float
        Added to the affinities of direct and long-range channels; between -1 and 0.
    strides : (3,) ints
        Stride (z, y, x), voxels, at which long-range edges are used.
    joined : (3, z, y, x) bool array, optional
        Edges to the voxel before along z, y, x that join before all others. Where it is certain
        that two voxels belong together, this saves most of the work.

    Returns
    -------
    (z, y, x) int32 array
        1, 2, ... in the order of first voxels; 0 outside of the mask.

    Raises
    ------
    ValueError
        If shapes do not fit, or there are 2^31 edges or more.

    References
    ----------
    Wolf et al. 2020, "The Mutex Watershed and its Objective", doi:10.1109/TPAMI.2020.2980827.
    """
    if affinities.shape != (len(neighborhood.shifts), *mask.shape):
        raise ValueError(
            f"affinities {affinities.shape} must be ({len(neighborhood.shifts)}, *{mask.shape})"
        )
    if affinities.size >= 2**31:
        raise ValueError(f"{affinities.size} edges are too many; use smaller tiles")
    if joined is not None and joined.shape != (3, *mask.shape):
        raise ValueError(f"joined {joined.shape} must be (3, *{mask.shape})")
    bias = np.full(len(affinities), long_range_bias, float)  # -1 would make them integers
    bias[neighborhood.direct] = direct_bias
    steps = np.ones((len(affinities), 3), np.int64)
    steps[neighborhood.long_range] = strides
    shifts = np.abs(neighborhood.shifts).astype(np.int64)
    parent = np.arange(mask.size, dtype=np.int32)
    if joined is not None:
        _join_first(parent, joined, mask)
    order, attracts = _sorted_edges(affinities, mask, shifts, steps, np.rint(bias * FULL))
    _, ny, nx = mask.shape
    _run(parent, order, attracts, shifts @ np.array([ny * nx, nx, 1]))
    return _labels(parent, mask.ravel()).reshape(mask.shape)


@njit(cache=True, nogil=True)
def _join_first(parent, joined, mask):
    nz, ny, nx = mask.shape
    inside = mask.ravel()
    steps = (ny * nx, nx, 1)
    for axis in range(3):
        for z in range(axis == 0, nz):
            for y in range(axis == 1, ny):
                for x in range(axis == 2, nx):
                    i = (z * ny + y) * nx + x
                    j = i - steps[axis]
                    if joined[axis, z, y, x] and inside[i] and inside[j]:
                        a, b = find_root(parent, i), find_root(parent, j)
                        parent[max(a, b)] = min(a, b)


@njit(cache=True, nogil=True)
def _sorted_edges(affinities, mask, shifts, steps, bias):
    """Flat (channel, voxel) numbers of all edges, strongest first, and which of them attract."""
    n_channels, nz, ny, nx = affinities.shape
    starts = np.zeros(_LEVELS + 1, np.int64)
    order = np.empty(0, np.int32)
    attracts = np.empty(0, np.bool_)
    for counting in (True, False):
        if not counting:
            total = 0
            for level in range(_LEVELS, -1, -1):
                total, starts[level] = total + starts[level], total
            order, attracts = np.empty(total, np.int32), np.empty(total, np.bool_)
        for c in range(n_channels):
            dz, dy, dx = shifts[c]
            # The first stride that has a partner; strides count from the first voxel.
            for z in range(-(-dz // steps[c, 0]) * steps[c, 0], nz, steps[c, 0]):
                for y in range(-(-dy // steps[c, 1]) * steps[c, 1], ny, steps[c, 1]):
                    for x in range(-(-dx // steps[c, 2]) * steps[c, 2], nx, steps[c, 2]):
                        if not (mask[z, y, x] and mask[z - dz, y - dy, x - dx]):
                            continue
                        weight = affinities[c, z, y, x] + bias[c]
                        level = int(abs(weight) * _LEVELS / FULL)
                        if counting:
                            starts[level] += 1
                        else:
                            order[starts[level]] = ((c * nz + z) * ny + y) * nx + x
                            attracts[starts[level]] = weight > 0
                            starts[level] += 1
    return order, attracts


@njit(cache=True, nogil=True)
def _run(parent, order, attracts, offsets):
    """Join and hold apart, in order. Changes `parent`.

    Which roots are held apart is in a hash table of pairs, and in one linked list of partners
    per root, so that the lists can be carried over when two sets become one.
    """
    n = len(parent)
    head, tail = np.full(n, -1, np.int32), np.full(n, -1, np.int32)
    count = np.zeros(n, np.int32)
    partner, following, links = np.empty(1 << 16, np.int32), np.empty(1 << 16, np.int32), 0
    keys, used = np.zeros(1 << 18, np.uint64), 0
    for e in range(len(order)):
        channel = order[e] // n
        i = order[e] - channel * n
        a, b = find_root(parent, i), find_root(parent, i - offsets[channel])
        if a == b:
            continue
        key = pair_key(a, b)
        if not attracts[e]:
            here = place(keys, key)
            if keys[here] == key:
                continue
            keys[here] = key
            used += 1
            if links + 2 > len(partner):
                partner = np.concatenate((partner, np.empty_like(partner)))
                following = np.concatenate((following, np.empty_like(following)))
            for one, other in ((a, b), (b, a)):
                partner[links], following[links] = other, -1
                if head[one] < 0:
                    head[one] = links
                else:
                    following[tail[one]] = links
                tail[one] = links
                count[one] += 1
                links += 1
            if 2 * used > len(keys):
                keys = doubled(keys)
            continue
        if count[a] > 0 and count[b] > 0 and keys[place(keys, key)] == key:
            continue
        if count[a] < count[b]:
            a, b = b, a
        parent[b] = a
        link = head[b]
        while link >= 0:
            after = following[link]
            other = find_root(parent, partner[link])
            key = pair_key(a, other)
            here = place(keys, key)
            if keys[here] != key:
                keys[here] = key
                used += 1
                if 2 * used > len(keys):
                    keys = doubled(keys)
                partner[link], following[link] = other, -1
                if head[a] < 0:
                    head[a] = link
                else:
                    following[tail[a]] = link
                tail[a] = link
                count[a] += 1
            link = after


@njit(cache=True, nogil=True)
def _labels(parent, inside):
    labels = np.zeros(len(parent), np.int32)
    number = np.zeros(len(parent), np.int32)
    n = 0
    for i in range(len(parent)):
        if inside[i]:
            root = find_root(parent, i)
            if number[root] == 0:
                n += 1
                number[root] = n
            labels[i] = number[root]
    return labels
