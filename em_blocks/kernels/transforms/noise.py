"""Random fields: of a generator, or of a seed and a place, whatever box is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

_LOSS = 0.479**1.5
"""Standard deviation that cubic B-spline weights leave of the values that they average."""


def smooth_noise(
    rng: np.random.Generator,
    shape: Sequence[int],
    voxel_size: Sequence[float] | np.ndarray,
    scale_nm: float | Sequence[float],
) -> np.ndarray:
    """Gaussian noise of unit variance, smooth on the scale of `scale_nm`.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : (3,) ints
        Voxels (z, y, x).
    voxel_size : (3,) floats
        nm per voxel.
    scale_nm : float or (3,) floats
        Distance over which the noise changes, nm.

    Returns
    -------
    (z, y, x) float32 array
    """
    # Drawn on a grid of `scale_nm` and interpolated: the same cost for any scale.
    spacing = np.asarray(voxel_size, float) / scale_nm
    coarse = np.maximum(np.ceil(np.asarray(shape) * spacing).astype(int), 1) + 3
    grid = rng.standard_normal(tuple(coarse), dtype=np.float32)
    axes = [
        (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(step) + 1
        for size, step in zip(shape, spacing, strict=True)
    ]
    for axis, at in enumerate(axes):
        base = np.floor(at).astype(int)
        grid = _interpolate(grid, base, at - base, axis)
    return grid * np.float32(1.0 / _LOSS)


def smooth_noise_in(
    begin: Sequence[int] | np.ndarray, shape: Sequence[int] | np.ndarray, *, seed: int,
    voxel_size: Sequence[float] | np.ndarray, scale_nm: float,
) -> np.ndarray:
    """As `smooth_noise`, of a seed: a voxel has the same value in every box that holds it.

    Parameters
    ----------
    begin, shape : (3,) ints
        First voxel of the box, which may be negative, and its size (z, y, x).
    """
    axes = [
        (first + np.arange(size) + 0.5) * (float(step) / scale_nm)
        for first, size, step in zip(begin, shape, voxel_size, strict=True)
    ]
    low = np.array([np.floor(at[0]) - 1 for at in axes], int)
    high = np.array([np.floor(at[-1]) + 3 for at in axes], int)
    grid = white_noise_in(low, high - low, seed=seed)
    for axis, at in enumerate(axes):
        base = np.floor(at).astype(int)
        grid = _interpolate(grid, base - low[axis], (at - base).astype(np.float32), axis)
    return grid * np.float32(1.0 / _LOSS)


def white_noise_in(
    begin: Sequence[int] | np.ndarray, shape: Sequence[int] | np.ndarray, *, seed: int
) -> np.ndarray:
    """Return nearly Gaussian noise of unit variance, (z, y, x) float32; of each voxel its own.

    It is the sum of four uniform numbers of 16 bits, and ends at 3.46 standard deviations.
    """
    found = np.empty(tuple(shape), np.float32)
    _hashed(found, np.asarray(begin, np.int64), np.uint64(_mixed_python(seed)))
    return found


_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = 2**64 - 1


def _mixed_python(value: int) -> int:
    """Return the mixed bits of a number: SplitMix64, Steele et al. 2014, doi:10.1145/2660193.2660195."""
    value = (value + _GOLDEN) & _WORD
    value = ((value ^ (value >> 30)) * _FIRST) & _WORD
    value = ((value ^ (value >> 27)) * _SECOND) & _WORD
    return value ^ (value >> 31)


@njit(cache=True, inline="always")
def _mixed(value):
    value = value + np.uint64(_GOLDEN)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(_FIRST)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(_SECOND)
    return value ^ (value >> np.uint64(31))


@njit(cache=True, nogil=True)
def _hashed(found, begin, key):
    """Fill an array with noise that depends on the key and the place of each voxel only."""
    low, bits = np.uint64(0xFFFF), np.uint64(16)
    for z in range(found.shape[0]):
        of_z = _mixed(key ^ np.uint64(begin[0] + z))
        for y in range(found.shape[1]):
            of_y = _mixed(of_z ^ np.uint64(begin[1] + y))
            for x in range(found.shape[2]):
                word = _mixed(of_y ^ np.uint64(begin[2] + x))
                total = np.int64(0)
                for _ in range(4):
                    total += np.int64(word & low)
                    word = word >> bits
                found[z, y, x] = (total - 131070.0) / 37837.22


def _interpolate(values: np.ndarray, base: np.ndarray, t: np.ndarray, axis: int) -> np.ndarray:
    """Cubic B-spline of `values` along one axis at the indices `base` + `t`, where `t` is in 0..1."""
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    along = [1, 1, 1]
    along[axis] = -1
    return sum(
        np.take(values, base + offset, axis) * weight.reshape(along)
        for offset, weight in zip((-1, 0, 1, 2), weights, strict=True)
    )
