"""Second moments of objects: exact sums over blocks, and the ellipsoid that has the same ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from em_blocks.geometry import Triple
from em_blocks.kernels.components.runs import Runs

PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""Axes (z, y, x) of the six second moments, in their order."""

_LOW_BITS = 31
# A voxel is a box, not a point: its own variance along an edge, in voxels^2.
_OF_A_VOXEL = 1 / 12


def second_moments(runs: Runs, member: np.ndarray, begin: np.ndarray, shape: Triple) -> np.ndarray:
    """Return the sums of products of indices of each object of a block.

    Parameters
    ----------
    runs : Runs
        Of the block, of `shape` voxels (z, y, x).
    member : (m,) int64 array
        The object of each run.
    begin : (n, 3) int64 array
        First index (z, y, x) of each object in the block; indices are counted from there.

    Returns
    -------
    (n, 6) int64 array
        By the pairs of axes in `PAIRS`.
    """
    return _second_moments(runs.first, runs.lengths, member, begin, shape)


@njit(cache=True, nogil=True)
def _second_moments(first, lengths, member, begin, shape):
    sums = np.zeros((len(begin), 6), np.int64)
    for i in range(len(first)):
        object, n = member[i], lengths[i]
        row = first[i] // shape[2]
        z, y = row // shape[1] - begin[object, 0], row % shape[1] - begin[object, 1]
        x = first[i] % shape[2] - begin[object, 2]
        all_x = n * x + n * (n - 1) // 2
        sums[object, 0] += n * z * z
        sums[object, 1] += n * z * y
        sums[object, 2] += z * all_x
        sums[object, 3] += n * y * y
        sums[object, 4] += y * all_x
        sums[object, 5] += n * x * x + x * n * (n - 1) + (n - 1) * n * (2 * n - 1) // 6
    return sums


class MomentParts(NamedTuple):
    """Moments of parts of objects, whose indices (z, y, x) are counted from the object's begin.

    Attributes
    ----------
    voxels : (m,) int64 array
    first : (m, 3) int64 array
        Sums of indices.
    second : (m, 6) int64 array
        Sums of products of indices, by `PAIRS`.
    """

    voxels: np.ndarray
    first: np.ndarray
    second: np.ndarray


def shifted(parts: MomentParts, shift: np.ndarray) -> MomentParts:
    """Return moments with `shift`, (m, 3) int64, added to all indices.

    Exact for parts of up to 2**27 voxels in objects that are up to 2**18 voxels long.
    """
    n = parts.voxels[:, None]
    second = np.stack([
        value + shift[:, a] * parts.first[:, b] + shift[:, b] * parts.first[:, a]
        + parts.voxels * shift[:, a] * shift[:, b]
        for value, (a, b) in zip(parts.second.T, PAIRS, strict=True)
    ], axis=1)
    return MomentParts(parts.voxels, parts.first + n * shift, second)


def covariances(parts: MomentParts, member: np.ndarray, n: int) -> np.ndarray:
    """Return the covariance of the indices (z, y, x) of the voxels, as boxes, of whole objects.

    The sums are exact, so it does not depend on how an object was cut into parts.

    Parameters
    ----------
    parts : MomentParts
    member : (m,) int64 array
        The object 0 .. n - 1 that each part belongs to.

    Returns
    -------
    (n, 3, 3) float64 array
        Voxels^2.
    """
    voxels = _total(parts.voxels[:, None], member, n)
    mean = _total(parts.first, member, n) / voxels
    second = _total(parts.second, member, n) / voxels
    found = np.empty((n, 3, 3))
    for value, (a, b) in zip(second.T, PAIRS, strict=True):
        found[:, a, b] = found[:, b, a] = value - mean[:, a] * mean[:, b]
    return found + _OF_A_VOXEL * np.eye(3)


def _total(values: np.ndarray, member: np.ndarray, n: int) -> np.ndarray:
    """Add up integers that may exceed 64 bits together; each total is rounded once, to float64."""
    high, low = np.zeros((2, n, values.shape[1]), np.int64)
    np.add.at(high, member, values >> _LOW_BITS)
    np.add.at(low, member, values & (2**_LOW_BITS - 1))
    # Carried over, both halves are the same for every order and number of parts.
    high += low >> _LOW_BITS
    return high * 2.0**_LOW_BITS + (low & (2**_LOW_BITS - 1))


class Shapes(NamedTuple):
    """Ellipsoids of the same second moments as objects.

    Attributes
    ----------
    axes : (n, 3) float64 array
        Their whole axes, the longest one first, nm.
    major : (n, 3) float64 array
        Unit vector (z, y, x) along the longest axis; its largest component is positive.
    gyration_radius : (n,) float64 array
        Root mean square distance from the centroid, nm.
    """

    axes: np.ndarray
    major: np.ndarray
    gyration_radius: np.ndarray


def shapes_of(covariance: np.ndarray, voxel_size: np.ndarray) -> Shapes:
    """Return the shapes of objects from their covariances (n, 3, 3) in voxels^2; nm (z, y, x)."""
    size = np.asarray(voxel_size, np.float64)
    values, vectors = np.linalg.eigh(covariance * size[:, None] * size)
    major = vectors[:, :, 2]
    largest = np.take_along_axis(major, np.abs(major).argmax(axis=1)[:, None], axis=1)
    return Shapes(
        2 * np.sqrt(5 * values[:, ::-1]), major * np.where(largest < 0, -1.0, 1.0),
        np.sqrt(values.sum(axis=1)),
    )
