"""Take components apart at their necks."""

from __future__ import annotations

import numpy as np
from numba import njit

from em_blocks.kernels.components.sparse_components import Groups, grouped
from em_blocks.kernels.components.sparse_depth import (
    depth_in_sections,
    doubled,
    half_voxel,
    neighbors,
)
from em_blocks.kernels.segmentation.pair_table import find_root

# A neck is at most 3/4 as wide as the narrower of the two parts that it joins: discs that overlap by
# about a third of their diameter. Every outline of voxels has smaller bays, and those are none.
_NECK, _PART = 16, 9  # 16 neck^2 <= 9 part^2


def split_necks(
    groups: Groups, shape: tuple[int, int, int], *, voxel_size: tuple[float, float, float],
    min_distance_nm: float, min_size: int,
) -> tuple[Groups, np.ndarray]:
    """Split components by a watershed of the distance to their border.

    From the deepest voxel down, every voxel goes to the part of its deepest neighbour that has one, or
    starts a new part. Where two parts meet, the one with the less deep middle (the voxel it started
    with) is joined to the other one, unless all of this is so:

    - there is a neck: the depth where they meet is at most 3/4 of that of the less deep middle;
    - the middles are at least `min_distance_nm` apart;
    - each part has `min_size` voxels at that depth or deeper.

    Depths are those in the section, across y and x only: a site spans few thick sections, so
    that the way out along z would be the shortest nearly everywhere and hide the outline.

    Parameters
    ----------
    groups : Groups
        Components of voxels, each in raster order.
    shape : (3,) ints
        Of the array.
    voxel_size : (3,) floats
        nm (z, y, x).
    min_distance_nm : float
    min_size : int

    Returns
    -------
    groups : Groups
        Parts in the order of first voxels; every list in raster order.
    component : (n,) int64 array
        Which of the given groups each part is of.

    References
    ----------
    Watershed by flooding, with basins joined by rules on saddle and size: Meyer and Beucher 1990,
    doi:10.1016/1047-3203(90)90014-M.
    """
    squared = int(min_distance_nm * 1000) ** 2
    numbers, n = _parts(*groups, shape[1], shape[2], half_voxel(voxel_size), squared, min_size)
    parts = grouped(numbers, groups.voxels, n)
    component = groups.numbers[np.unique(numbers, return_index=True)[1]]
    order = np.argsort(parts.voxels[parts.starts[:-1]])
    return parts.select(order), component[order]


@njit(cache=True, nogil=True)
def _parts(voxels, starts, ny, nx, half, min_squared, min_size):
    """Part of every voxel, 0, 1, ... in the order of lists and first voxels; and their number."""
    numbers, n = np.empty(len(voxels), np.int64), 0
    for group in range(len(starts) - 1):
        begin, end = starts[group], starts[group + 1]
        if end - begin < 2 * min_size:
            numbers[begin:end] = n
            n += 1
            continue
        part = _flooded(voxels[begin:end], ny, nx, half, min_squared, min_size)
        number = np.full(len(part), -1)
        for i in range(len(part)):
            if number[part[i]] < 0:
                number[part[i]] = n
                n += 1
            numbers[begin + i] = number[part[i]]
    return numbers, n


@njit(cache=True, nogil=True)
def _flooded(voxels, ny, nx, half, min_squared, min_size):
    """Part of every voxel of one component, as the voxel that it started with."""
    around = neighbors(voxels, ny, nx)
    points = doubled(voxels, ny, nx)
    depth = depth_in_sections(around, points, half)
    parent, size = np.full(len(voxels), -1), np.zeros(len(voxels), np.int64)
    middle_of = np.full(len(voxels), -1)
    for i in np.argsort(-depth, kind="mergesort"):
        nearest = _deepest_neighbor(around[i], middle_of, depth)
        if nearest < 0:
            middle_of[i] = parent[i] = i
        else:
            middle_of[i] = middle_of[nearest]
        size[find_root(parent, middle_of[i])] += 1
        for j in around[i]:
            if j < 0 or middle_of[j] < 0:
                continue
            a, b = find_root(parent, middle_of[i]), find_root(parent, middle_of[j])
            if depth[a] < depth[b] or (depth[a] == depth[b] and a > b):
                a, b = b, a
            if a == b or (
                _NECK * depth[i] <= _PART * depth[b]
                and _apart(points[a], points[b], half) >= min_squared
                and min(size[a], size[b]) >= min_size
            ):
                continue
            parent[b] = a
            size[a] += size[b]
    for i in range(len(voxels)):
        middle_of[i] = find_root(parent, middle_of[i])
    return middle_of


@njit(cache=True, inline="always")
def _deepest_neighbor(around, middle_of, depth):
    """The deepest neighbour that belongs to a part, of several the first; -1: none does."""
    found = -1
    for j in around:
        if j >= 0 and middle_of[j] >= 0 and (
            found < 0 or depth[j] > depth[found] or (depth[j] == depth[found] and j < found)
        ):
            found = j
    return found


@njit(cache=True, inline="always")
def _apart(a, b, half):
    """Squared distance of the centres of two voxels."""
    dz, dy, dx = (a - b) * half
    return dz**2 + dy**2 + dx**2
