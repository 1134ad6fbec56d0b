"""Smooth random fields."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
        grid = _interpolate(grid, at, axis)
    # Cubic B-spline weights average the drawn values; undo the loss of variance.
    return grid * np.float32(1.0 / 0.479**1.5)


def _interpolate(values: np.ndarray, at: np.ndarray, axis: int) -> np.ndarray:
    """Cubic B-spline of `values` along one axis at fractional indices `at`."""
    base = np.floor(at).astype(int)
    t = at - base
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
