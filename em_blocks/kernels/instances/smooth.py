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

PART = 64
"""Voxels of a row that are needed, or not, together."""

_TRUNCATE = 4.0
"""Standard deviations at which a Gaussian is cut, as in scipy."""


def reach(sigma: Sequence[float]) -> Triple:
    """Return the voxels (z, y, x) on each side that a smoothed voxel depends on."""
    return triple(int(_TRUNCATE * s + 0.5) for s in sigma)


def may_reach(values: np.ndarray, sigma: Sequence[float], least: int) -> np.ndarray:
    """Return where a smoothed map could be as high as that: no mean is above what it is a mean of.

    Parameters
    ----------
    values : (z, y, x) uint8 array
        The map before it is smoothed.
    sigma : (3,) floats
        As of `smooth`.
    least : int

    Returns
    -------
    (z, y, n) bool array
        Of every row of the smoothed map, its parts of `PART` voxels.
    """
    radius = reach(sigma)
    found = _parts_that_reach(values, least, 2 * radius[2])
    for axis in (0, 1):
        n = found.shape[axis] - 2 * radius[axis]
        shifted = [found.take(range(k, k + n), axis) for k in range(2 * radius[axis] + 1)]
        found = np.logical_or.reduce(shifted)
    return found


@njit(cache=True, nogil=True)
def _parts_that_reach(values, least, halo):
    nz, ny, nx = values.shape
    found = np.zeros((nz, ny, (nx - halo + PART - 1) // PART), np.bool_)
    for z in range(nz):
        for y in range(ny):
            for part in range(found.shape[2]):
                high = np.uint8(0)
                for value in values[z, y, part * PART : part * PART + PART + halo]:
                    high = max(high, value)
                found[z, y, part] = high >= least
    return found


def smooth(
    values: np.ndarray, sigma: Sequence[float], needed: np.ndarray | None = None
) -> np.ndarray:
    """Smooth a map by a Gaussian.

    Parameters
    ----------
    values : (z, y, x) uint8 array
    sigma : (3,) floats
        Standard deviations, voxels (z, y, x); 0 for none along an axis.
    needed : (z, y, n) bool array, optional
        As from `may_reach`. Other values may be 0 or not smoothed. Default: all are needed.

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
        weights = _weights(sigma[axis], reach(sigma)[axis])
        if needed is None or axis == 0:
            found = _along(found, weights, axis, bits, kind)
        else:
            found = _along(found, weights, axis, bits, kind, needed, halo=2 * reach(sigma)[2])
    return found


def _weights(sigma: float, radius: int) -> np.ndarray:
    """Return (2 radius + 1,) uint32 weights of a Gaussian, whose sum is `_ONE`."""
    gauss = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights = np.rint(gauss / gauss.sum() * _ONE).astype(np.int64)
    weights[radius] += _ONE - weights.sum()
    return weights.astype(np.uint32)


def _along(
    values: np.ndarray, weights: np.ndarray, axis: int, bits: int, kind: type[np.unsignedinteger],
    needed: np.ndarray | None = None, halo: int = 0,
) -> np.ndarray:
    """Return weighted sums along an axis, without their last bits; it gets shorter by the reach."""
    before, after = values.shape[:axis], values.shape[axis + 1 :]
    flat = values.reshape(math.prod(before), values.shape[axis], math.prod(after))
    n = values.shape[axis] - len(weights) + 1
    found = np.zeros((len(flat), n, flat.shape[2]), kind)
    flat = np.ascontiguousarray(flat)
    if axis == 2:
        width = n if needed is None else PART
        chosen = np.ones((len(flat), 1), np.bool_) if needed is None else needed
        _sums_of_rows(flat, weights, found, bits, chosen.reshape(len(flat), -1), width)
    else:
        width = flat.shape[2] if needed is None else PART
        chosen = np.ones((len(flat), n, 1), np.bool_) if needed is None else needed
        _sums(flat, weights, found, bits, chosen, width, halo)
    return found.reshape(*before, n, *after)


@njit(cache=True, nogil=True)
def _sums(values, weights, found, bits, needed, width, halo):
    half, bits = np.uint32(1 << (bits - 1)), np.uint32(bits)
    rows = np.empty(values.shape[2], np.uint32)
    for o in range(len(found)):
        for i in range(found.shape[1]):
            for part in range(needed.shape[2]):
                if not needed[o, i, part]:
                    continue
                begin, end = part * width, min(values.shape[2], part * width + width + halo)
                row = rows[: end - begin]
                row[:] = half
                for k in range(len(weights)):
                    weight, line = weights[k], values[o, i + k, begin:end]
                    for j in range(len(row)):
                        row[j] += np.uint32(weight * np.uint32(line[j]))
                target = found[o, i, begin:end]
                for j in range(len(row)):
                    target[j] = row[j] >> bits


@njit(cache=True, nogil=True)
def _sums_of_rows(values, weights, found, bits, needed, width):
    half, bits = np.uint32(1 << (bits - 1)), np.uint32(bits)
    rows = np.empty(width, np.uint32)
    for o in range(len(found)):
        for part in range(needed.shape[1]):
            if not needed[o, part]:
                continue
            begin, end = part * width, min(found.shape[1], part * width + width)
            row = rows[: end - begin]
            row[:] = half
            for k in range(len(weights)):
                weight, line = weights[k], values[o, begin + k : end + k, 0]
                for i in range(len(row)):
                    row[i] += np.uint32(weight * np.uint32(line[i]))
            target = found[o, begin:end, 0]
            for i in range(len(row)):
                target[i] = row[i] >> bits
