"""Affinities from labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Affinities(NamedTuple):
    """Affinities and where they are defined, both (c, z, y, x)."""

    values: np.ndarray
    mask: np.ndarray


def affinities(
    labels: np.ndarray, neighborhood: Sequence[Sequence[int]], *, known: np.ndarray | None = None
) -> Affinities:
    """Compute whether every voxel and its shifted partner are in the same object.

    Parameters
    ----------
    labels : (z, y, x) int array
        Object ids; 0 belongs to no object, so it has affinity 0 to anything.
    neighborhood : (c, 3) ints
        Shift from a voxel to its partner, voxels (z, y, x), one per channel.
    known : (z, y, x) bool array, optional
        Voxels whose label can be trusted; pairs with another voxel are masked.

    Returns
    -------
    values : (c, z, y, x) uint8 array
        1 iff both voxels have the same nonzero label.
    mask : (c, z, y, x) uint8 array
        1 iff the partner is inside the array and both labels are known.

    Raises
    ------
    ValueError
        If an array or the neighborhood does not have the shape above.
    """
    shifts = np.asarray(neighborhood)
    if labels.ndim != 3:
        raise ValueError(f"labels must be (z, y, x), got shape {labels.shape}")
    if shifts.ndim != 2 or shifts.shape[1] != 3:
        raise ValueError(f"neighborhood must be (c, 3), got shape {shifts.shape}")
    if known is not None and known.shape != labels.shape:
        raise ValueError(f"known has shape {known.shape}, labels have {labels.shape}")
    values = np.zeros((len(shifts), *labels.shape), np.uint8)
    mask = np.zeros_like(values)
    for channel, shift in enumerate(shifts):
        here, there = _pair_views(labels.shape, shift)
        values[channel][here] = (labels[here] == labels[there]) & (labels[here] != 0)
        mask[channel][here] = 1 if known is None else known[here] & known[there]
    return Affinities(values, mask)


def erode_labels(labels: np.ndarray, voxels: Sequence[int]) -> np.ndarray:
    """Set voxels to 0 that lie within `voxels` of another label.

    Membranes are thicker than the line where two labels touch; a network
    learns them better if the target is as thick.

    Parameters
    ----------
    labels : (z, y, x) int array
    voxels : (3,) ints
        Reach along every axis (z, y, x).

    Returns
    -------
    (z, y, x) array like `labels`
        A copy. The outside of the array counts as the same object.
    """
    boundary = np.zeros(labels.shape, bool)
    for axis, reach in enumerate(voxels):
        for distance in range(1, reach + 1):
            shift = [0, 0, 0]
            shift[axis] = distance
            here, there = _pair_views(labels.shape, shift)
            differs = labels[here] != labels[there]
            boundary[here] |= differs
            boundary[there] |= differs
    return np.where(boundary, labels.dtype.type(0), labels)


def _pair_views(shape: Sequence[int], shift: Sequence[int]) -> tuple[tuple, tuple]:
    """Slices of all voxels whose partner at `shift` is inside, and of the partners.

    Both are empty and of the same shape when the shift is larger than the array.
    """
    here, there = [], []
    for size, step in zip(shape, shift, strict=True):
        step = int(np.clip(step, -size, size))
        here.append(slice(max(0, -step), size - max(0, step)))
        there.append(slice(max(0, step), size - max(0, -step)))
    return tuple(here), tuple(there)
