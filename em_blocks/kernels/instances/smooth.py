"""Gaussian smoothing of maps in whole numbers.

Sums of whole numbers do not depend on their order: a voxel gets the same value in whatever box it is
smoothed, which sums of floats do not promise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit

from em_blocks.geometry import Triple, triple

_ONE = 1 << 16
"""Sum of the weights along an axis: products with 16 bits fit into 32."""

_TRUNCATE = 4.0
"""Standard deviations at which a Gaussian is cut, as in scipy."""


def reach(sigma: Sequence[float]) -> Triple:
    """Return the voxels (z, y, x) on each side that a smoothed voxel depends on."""
    return triple(int(_TRUNCATE * s + 0.5) for s in sigma)


def smooth(values: np.ndarray, sigma: Sequence[float]) -> np.ndarray:
    """Smooth a map by a Gaussian.

    Parameters
    ----------
    values : (z, y, x) uint8 array
    sigma : (3,) floats
        Standard deviations, voxels (z, y, x); 0 for none along an axis.

    Returns
    -------
    uint8 array
        Smaller than `values` by `reach` on all six sides: only what is known is returned.

    Raises
    ------
    ValueError
        If `values` are not uint8, or no larger than the reach.
    """
    if values.dtype != np.uint8:
        raise ValueError(f"maps are smoothed as uint8, got {values.dtype}")
    if any(n <= 2 * r for n, r in zip(values.shape, reach(sigma), strict=True)):
        raise ValueError(f"{values.shape} voxels are not more than twice the reach {reach(sigma)}")
    if not any(reach(sigma)):
        return values
    fine = values.astype(np.uint16) << 8
    for axis, (s, radius) in enumerate(zip(sigma, reach(sigma), strict=True)):
        if radius:
            fine = _along(fine, _weights(s, radius), axis)
    return ((fine.astype(np.uint32) + 128) >> 8).astype(np.uint8)


def _weights(sigma: float, radius: int) -> np.ndarray:
    """Return (2 radius + 1,) uint32 weights of a Gaussian, whose sum is `_ONE`."""
    gauss = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights = np.rint(gauss / gauss.sum() * _ONE).astype(np.int64)
    weights[radius] += _ONE - weights.sum()
    return weights.astype(np.uint32)


def _along(values: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Return weighted sums along an axis, which gets shorter by the weights but one."""
    before, after = values.shape[:axis], values.shape[axis + 1 :]
    flat = values.reshape(math.prod(before), values.shape[axis], math.prod(after))
    found = _sums(flat, weights)
    return found.reshape(*before, found.shape[1], *after)


@njit(cache=True, nogil=True)
def _sums(values, weights):
    n, inner = values.shape[1] - len(weights) + 1, values.shape[2]
    found = np.empty((values.shape[0], n, inner), np.uint16)
    half, bits = np.uint32(32768), np.uint32(16)
    if inner == 1:
        row = np.empty(n, np.uint32)
        for o in range(values.shape[0]):
            row[:] = half
            for k in range(len(weights)):
                weight = weights[k]
                for i in range(n):
                    row[i] += weight * np.uint32(values[o, i + k, 0])
            for i in range(n):
                found[o, i, 0] = row[i] >> bits
        return found
    row = np.empty(inner, np.uint32)
    for o in range(values.shape[0]):
        for i in range(n):
            row[:] = half
            for k in range(len(weights)):
                weight, line = weights[k], values[o, i + k]
                for j in range(inner):
                    row[j] += weight * np.uint32(line[j])
            for j in range(inner):
                found[o, i, j] = row[j] >> bits
    return found
