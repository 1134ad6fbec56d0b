"""Contrast-limited adaptive histogram equalisation (CLAHE): how each region maps its grey values.

The volume is cut into regions of `kernel_shape` voxels, the first of which begins at its first voxel;
those at its end are cut. A region maps a grey value to its rank in the region: to the share of voxels
that are at most as bright. Where a grey value has more than a `clip_limit` of all voxels, the
histogram is cut there, and what was cut off is shared among the other grey values, so that noise
of even regions is not blown up.

S. M. Pizer et al., Adaptive histogram equalization and its variations, 1987,
doi:10.1016/S0734-189X(87)80186-X; K. Zuiderveld, Contrast limited adaptive histogram equalization,
Graphics Gems IV, 1994.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from em_blocks.geometry import Triple
from em_blocks.kernels.images.grey_values import GREY_VALUES

STEPS = 256
"""A map is stored to 1/256 of a grey value."""
BRIGHTEST = (GREY_VALUES - 1) * STEPS


def region_histograms(grey: np.ndarray, counted: np.ndarray, kernel_shape: Triple) -> np.ndarray:
    """Count grey values in regions, the first of which begins at the first voxel.

    Parameters
    ----------
    grey : (z, y, x) uint8 array
    counted : (z, y, x) bool array
        Voxels that count.
    kernel_shape : (3,) int
        Voxels (z, y, x) of a region.

    Returns
    -------
    (rz, ry, rx, 256) int64 array
    """
    n_regions = [-(-n // k) for n, k in zip(grey.shape, kernel_shape, strict=True)]
    # What does not count is counted behind the grey values, which is faster than to ask each time.
    counts = np.zeros((*n_regions, 2 * GREY_VALUES), np.int64)
    _count(grey, counted, *kernel_shape, counts)
    return counts[..., :GREY_VALUES]


@njit(cache=True, nogil=True)
def _count(grey, counted, kz, ky, kx, counts):
    for z in range(grey.shape[0]):
        for y in range(grey.shape[1]):
            for region in range(counts.shape[2]):
                histogram = counts[z // kz, y // ky, region]
                for x in range(region * kx, min((region + 1) * kx, grey.shape[2])):
                    histogram[grey[z, y, x] + (0 if counted[z, y, x] else GREY_VALUES)] += 1


def contrast_maps(histograms: np.ndarray, clip_limit: float) -> np.ndarray:
    """Return what each region maps grey values to, in 1/256 of a grey value.

    All of it is computed in integers: no order of summation has a say in a rounding.

    Parameters
    ----------
    histograms : (..., 256) int64 array
    clip_limit : float
        Largest share of a region's voxels that a grey value counts with; at least 1/256, where the
        map is the identity, is taken. 1: nothing is clipped.

    Returns
    -------
    (..., 256) uint16 array
        Not falling, the last is 255 * 256; 0 of regions in which no voxel counts.
    """
    counts = histograms.reshape(-1, GREY_VALUES)
    total = counts.sum(axis=1, keepdims=True)
    limit = np.maximum(np.floor(clip_limit * total).astype(np.int64), -(-total // GREY_VALUES))
    limit = np.maximum(limit, 1)
    clipped = np.minimum(counts, limit)
    full, shared, among = _shares(limit - clipped, total - clipped.sum(axis=1, keepdims=True))
    # A full grey value counts `limit` voxels, any other its own and shared / among more.
    voxels = np.where(full, limit, clipped).cumsum(axis=1) * among + (~full).cumsum(axis=1) * shared
    ends = np.maximum(total * among, 1)
    return ((2 * BRIGHTEST * voxels + ends) // (2 * ends)).astype(np.uint16).reshape(histograms.shape)


def _shares(room: np.ndarray, excess: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share the excess of each region equally among its grey values, none beyond its room.

    Returns
    -------
    full : (n, 256) bool array
        Grey values whose room is used up.
    shared, among : (n, 1) int64 arrays
        Every other grey value gets shared / among.
    """
    ascending = np.sort(room, axis=1)
    used = ascending.cumsum(axis=1)
    left = GREY_VALUES - np.arange(1, GREY_VALUES + 1)
    # What is given away in all if every grey value gets as much as the m-th smallest room holds.
    n_full = (used + left * ascending <= excess).sum(axis=1, keepdims=True)
    last_full = np.maximum(n_full - 1, 0)
    fills = np.where(n_full > 0, np.take_along_axis(ascending, last_full, axis=1), -1)
    given = np.where(n_full > 0, np.take_along_axis(used, last_full, axis=1), 0)
    return room <= fills, excess - given, np.maximum(GREY_VALUES - n_full, 1)
