"""Voxels near the border of a neuron in their section, which the CREMI challenge does not score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

# Distances are square roots: 5 pixels of 4.6 nm may come out as 22.999... or 23.000... nm.
_ROUNDING = 1 + 1e-9


def near_borders(
    labels: np.ndarray, *, distance_nm: float, voxel_size: Sequence[float]
) -> np.ndarray:
    """Find voxels within a distance of a border in their section, from centre to centre.

    A voxel is on a border if one of its 4 neighbours in the section has another id; the end of the
    array is none.

    Parameters
    ----------
    labels : (z, y, x) int array
    distance_nm : float
        Largest distance, included; 0 marks the voxels on borders.
    voxel_size : (3,) float
        nm (z, y, x). CREMI's script divides by the size along y; here y and x may differ.

    Returns
    -------
    (z, y, x) bool array

    References
    ----------
    The border threshold of https://cremi.org/metrics/ (neuron segmentation).
    """
    border = np.zeros(labels.shape, bool)
    for axis in (1, 2):
        upper, lower = (np.swapaxes(border, axis, 0)[part] for part in (slice(1, None), slice(-1)))
        differ = np.swapaxes(np.diff(labels, axis=axis) != 0, axis, 0)
        upper |= differ
        lower |= differ
    for section in border:
        if section.any():  # without a border the distance to the nearest one is not defined
            distances = ndimage.distance_transform_edt(~section, sampling=voxel_size[1:])
            np.less_equal(distances, distance_nm * _ROUNDING, out=section)
    return border


def border_context(distance_nm: float, voxel_size: Sequence[float]) -> tuple[int, int, int]:
    """Voxels (z, y, x) around a box that decide what lies near a border in it."""
    # One more, because a voxel is on a border for the sake of its neighbour.
    y, x = (math.floor(distance_nm * _ROUNDING / size) + 1 for size in voxel_size[1:])
    return (0, y, x)
