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
    axes = [axis for axis, radius in enumerate(reach(sigma)) if radius]
    found = values
    for axis in axes:
        # Between the axes a byte has 8 further bits; sums of products with weights fit into 32.
        kind = np.uint8 if axis == axes[-1] else np.uint16
        bits = 16 + 8 * (found.itemsize - np.dtype(kind).itemsize)
        found = _along(found, _weights(sigma[axis], reach(sigma)[axis]), axis, bits, kind)
    return found


def _weights(sigma: float, radius: int) -> np.ndarray:
    """Return (2 radius + 1,) uint32 weights of a Gaussian, whose sum is `_ONE`."""
    gauss = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights = np.rint(gauss / gauss.sum() * _ONE).astype(np.int64)
    weights[radius] += _ONE - weights.sum()
    return weights.astype(np.uint32)


def _along(
    values: np.ndarray, weights: np.ndarray, axis: int, bits: int, kind: type[np.unsignedinteger]
) -> np.ndarray:
    """Return weighted sums along an axis, without their last bits; it gets shorter by the reach."""
    before, after = values.shape[:axis], values.shape[axis + 1 :]
    flat = values.reshape(math.prod(before), values.shape[axis], math.prod(after))
    n = values.shape[axis] - len(weights) + 1
    found = np.empty((len(flat), n, flat.shape[2]), kind)
    (_sums_of_rows if flat.shape[2] == 1 else _sums)(np.ascontiguousarray(flat), weights, found, bits)
    return found.reshape(*before, n, *after)


@njit(cache=True, nogil=True)
def _sums(values, weights, found, bits):
    half, bits = np.uint32(1 << (bits - 1)), np.uint32(bits)
    row = np.empty(values.shape[2], np.uint32)
    for o in range(len(found)):
        for i in range(found.shape[1]):
            row[:] = half
            for k in range(len(weights)):
                weight, line = weights[k], values[o, i + k]
                for j in range(len(row)):
                    row[j] += np.uint32(weight * np.uint32(line[j]))
            target = found[o, i]
            for j in range(len(row)):
                target[j] = row[j] >> bits


@njit(cache=True, nogil=True)
def _sums_of_rows(values, weights, found, bits):
    half, bits = np.uint32(1 << (bits - 1)), np.uint32(bits)
    row = np.empty(found.shape[1], np.uint32)
    for o in range(len(found)):
        row[:] = half
        for k in range(len(weights)):
            weight, line = weights[k], values[o, k:, 0]
            for i in range(len(row)):
                row[i] += np.uint32(weight * np.uint32(line[i]))
        target = found[o, :, 0]
        for i in range(len(row)):
            target[i] = row[i] >> bits
