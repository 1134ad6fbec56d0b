"""Tissue from its grey values: smooth shapes without specks and cracks."""

from __future__ import annotations

import math

import edt
import numpy as np

from em_blocks.geometry import Triple, triple

LARGEST_COMMON = 2000
"""Least common multiple of half axes up to which squared distances are exact in 24 bits."""

Radius = tuple[int, int, int]
"""Voxels (z, y, x) of the half axes of an ellipsoid, its centre not counted; 0: flat along the axis."""


def tissue(
    values: np.ndarray, low: float, high: float, *, opening: Radius, closing: Radius
) -> np.ndarray:
    """Return voxels of grey values between `low` and `high`, opened, then closed.

    Parameters
    ----------
    values : (z, y, x) array
    low, high : float
        Both excluded.
    opening, closing : (3,) int
        What is thinner than the ellipsoid of `opening` is removed, gaps that are thinner than that of
        `closing` are filled.

    Returns
    -------
    (z, y, x) bool array
        Exact where `reach(opening, closing)` voxels of `values`, or the end of the volume, lie around.
    """
    found = (values > low) & (values < high)
    return erode(dilate(dilate(erode(found, opening), opening), closing), closing)


def reach(opening: Radius, closing: Radius) -> Triple:
    """Return voxels (z, y, x) around a voxel that decide whether it is tissue."""
    return triple(2 * (o + c) for o, c in zip(opening, closing, strict=True))


def erode(mask: np.ndarray, radius: Radius) -> np.ndarray:
    """Keep voxels that have none outside of `mask` in their ellipsoid; the end of the array is none."""
    if mask.all():
        return mask
    weights, largest = _weights(radius)
    return _squared(mask, weights) > largest


def dilate(mask: np.ndarray, radius: Radius) -> np.ndarray:
    """Add voxels that have one of `mask` in their ellipsoid."""
    if not mask.any():
        return mask
    weights, largest = _weights(radius)
    return _squared(~mask, weights) <= largest


def _squared(mask: np.ndarray, weights: Triple) -> np.ndarray:
    """Return the squared distance of each voxel to the next one outside of `mask`."""
    return edt.edtsq(
        np.ascontiguousarray(mask), anisotropy=weights, black_border=False, parallel=1
    )


def _weights(radius: Radius) -> tuple[Triple, int]:
    """Return sizes of voxels in which the ellipsoid is a ball, and its squared radius.

    They are integers, so that squared distances up to the radius are exact in floats.
    """
    common = math.lcm(*(r for r in radius if r))
    return triple(common // r if r else 2 * common for r in radius), common**2
