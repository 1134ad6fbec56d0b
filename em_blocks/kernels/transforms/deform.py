"""Elastic deformations of volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from em_blocks.kernels.transforms.noise import smooth_noise

_NEWTON_STEPS = 12
_STRIDE = 4  # of the voxels among which the search for a point begins


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
    """Compute the source position of every voxel of a deformed box.

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


def deformed_points(
    positions: np.ndarray, points: np.ndarray, voxel_size: Sequence[float]
) -> np.ndarray:
    """Map points of the source into a deformed box: the inverse of `positions`.

    Parameters
    ----------
    positions : (3, z, y, x) array
        Of `deformed_positions`, or any other smooth deformation.
    points : (n, 3) array
        Voxels of the source, fractions allowed. Beyond the box the deformation is continued
        linearly.
    voxel_size : (3,) floats
        nm, to tell what is near.

    Returns
    -------
    (n, 3) float64 array
        Voxels of the deformed box, to a thousandth.
    """
    points = np.asarray(points, float).reshape(-1, 3)
    if not len(points):
        return points
    found = _nearest_voxels(positions, points, np.asarray(voxel_size, float))
    for _ in range(_NEWTON_STEPS):
        value, slope = _linearised(positions, found)
        found -= np.linalg.solve(slope, (value - points)[..., None])[..., 0]
    return found




def _nearest_voxels(positions: np.ndarray, points: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The voxel of a coarse grid that comes from nearest to each point."""
    coarse = positions[:, :, ::_STRIDE, ::_STRIDE]
    sources = coarse.reshape(3, -1).T * size
    _, nearest = cKDTree(sources).query(points * size)
    index = np.stack(np.unravel_index(nearest, coarse.shape[1:]), axis=1)
    return index * np.array([1.0, _STRIDE, _STRIDE])


def _linearised(positions: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sources (n, 3) of places in the box, and the matrices (n, 3, 3) by which they change."""
    last = np.array(positions.shape[1:]) - 1
    inside = np.clip(at, 0, last)
    slope = np.empty((len(at), 3, 3))
    for axis in range(3):
        if last[axis] == 0:  # one voxel thick: nothing is known about this direction
            slope[:, :, axis] = np.eye(3)[axis]
            continue
        step = np.zeros(3)
        step[axis] = 1.0
        above, below = (np.clip(inside + sign * step / 2, 0, last) for sign in (1, -1))
        width = (above - below)[:, axis, None]
        slope[:, :, axis] = (_interpolated(positions, above) - _interpolated(positions, below)) / width
    value = _interpolated(positions, inside)
    value += (slope @ (at - inside)[..., None])[..., 0]
    return value, slope


def _interpolated(positions: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.stack(
        [ndimage.map_coordinates(p, at.T, order=1, mode="nearest", output=float) for p in positions],
        axis=1,
    )
