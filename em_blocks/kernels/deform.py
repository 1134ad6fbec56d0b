"""Elastic deformations of volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from em_blocks.kernels.noise import smooth_noise


def deformed_positions(
    rng: np.random.Generator,
    shape: Sequence[int],
    *,
    voxel_size: Sequence[float],
    spacing_nm: Sequence[float],
    jitter_nm: Sequence[float],
    angle: float,
    scale: Sequence[float],
) -> np.ndarray:
    """Where every voxel of a deformed box comes from.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : (3,) ints
        Voxels of the box (z, y, x).
    voxel_size : (3,) floats
        nm per voxel.
    spacing_nm, jitter_nm : (3,) floats
        Distance over which the displacement changes, and its standard
        deviation, per axis. Displacements end at three standard deviations.
    angle : float
        Rotation about the box's centre within the plane (y, x), radians.
    scale : (3,) floats
        Magnification about the centre, per axis.

    Returns
    -------
    (3, z, y, x) float32 array
        Source positions in voxels from the first voxel of the box. They reach
        beyond the box.
    """
    size = np.asarray(voxel_size, float)
    centre = (np.asarray(shape) - 1) / 2
    axes = [
        ((np.arange(count) - middle) * step / zoom).astype(np.float32)
        for count, middle, step, zoom in zip(shape, centre, size, scale, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    straight = (z, cos * y - sin * x, sin * y + cos * x)
    positions = np.empty((3, *shape), np.float32)
    for axis in range(3):
        noise = np.clip(smooth_noise(rng, shape, size, spacing_nm), -3, 3)
        nm = straight[axis] + np.float32(jitter_nm[axis]) * noise
        positions[axis] = nm / np.float32(size[axis]) + np.float32(centre[axis])
    return positions


def sample(volume: np.ndarray, positions: np.ndarray, *, interpolate: bool) -> np.ndarray:
    """Values of `volume` (z, y, x) at `positions` (3, ...), voxels.

    Labels are looked up, not interpolated: ids pass unchanged, whatever their size.
    """
    if interpolate:
        return ndimage.map_coordinates(volume, positions, order=1, mode="nearest")
    index = np.rint(positions).astype(np.intp)
    return volume[
        tuple(np.clip(at, 0, size - 1) for at, size in zip(index, volume.shape, strict=True))
    ]
