"""Affinities of any neighborhood, brought into one form for watershed and region graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

FULL = 65535
"""Affinity 1 in the integers that kernels work on: sums of integers do not depend on their order,
so a graph that is put together from blocks equals the graph of the whole, to the last digit."""


@dataclass(frozen=True)
class Neighborhood:
    """Which pairs of voxels the channels of an affinity volume join.

    Parameters
    ----------
    shifts : (c, 3) ints
        Shift (z, y, x) from a voxel to its partner, per channel. The three direct neighbours must
        be among them, along z, y and x, with either sign; every other shift is long-range.

    Raises
    ------
    ValueError
        If a direct neighbour is missing or given twice, or a shift is 0.
    """

    shifts: tuple[tuple[int, int, int], ...]

    def __post_init__(self):
        shifts = tuple(tuple(map(int, shift)) for shift in self.shifts)
        object.__setattr__(self, "shifts", shifts)
        if any(len(s) != 3 or not any(s) for s in shifts):
            raise ValueError(f"every shift must be three integers, not all 0; got {shifts}")
        for axis in range(3):
            found = [s for s in shifts if _length(s) == 1 and s[axis]]
            if len(found) != 1:
                raise ValueError(
                    f"the neighborhood must hold one shift of one voxel along {'zyx'[axis]}, got "
                    f"{found} in {shifts}"
                )

    @property
    def direct(self) -> list[int]:
        """Channels of the direct neighbours along z, y, x."""
        return [
            next(c for c, s in enumerate(self.shifts) if _length(s) == 1 and s[axis])
            for axis in range(3)
        ]

    @property
    def long_range(self) -> list[int]:
        """All other channels."""
        return [c for c, s in enumerate(self.shifts) if _length(s) > 1]

    @property
    def reach(self) -> tuple[int, int, int]:
        """Largest shift per axis, voxels (z, y, x)."""
        return tuple(int(n) for n in np.abs(self.shifts).max(axis=0))


def _length(shift: Sequence[int]) -> int:
    return sum(map(abs, shift))


def quantised(values: np.ndarray) -> np.ndarray:
    """Affinities as integers 0..`FULL`.

    Parameters
    ----------
    values : array
        uint8 (255 is affinity 1), uint16 (65535 is 1) or float in 0..1.

    Returns
    -------
    uint16 array of the same shape

    Raises
    ------
    ValueError
        If floats lie outside of 0..1, or the dtype is another.
    """
    if values.dtype == np.uint8:
        return values * np.uint16(FULL // 255)
    if values.dtype == np.uint16:
        return values
    if values.dtype.kind != "f":
        raise ValueError(f"affinities must be uint8, uint16 or float, got {values.dtype}")
    if values.size:
        lowest, highest = float(values.min()), float(values.max())
        if not (lowest >= -1e-6 and highest <= 1 + 1e-6):  # also true for nan
            raise ValueError(f"affinities must lie in 0..1, got {lowest:.4g}..{highest:.4g}")
    return np.rint(np.clip(values, 0, 1) * FULL).astype(np.uint16)


def to_previous(affinities: np.ndarray, neighborhood: Neighborhood) -> np.ndarray:
    """Affinities stored at the later voxel of every pair.

    Channels whose shift is positive (partner after the voxel) are moved so that afterwards every
    voxel holds its affinity to the voxel ``|shift|`` before it, 0 where there is none.

    Parameters
    ----------
    affinities : (c, z, y, x) array

    Returns
    -------
    (c, z, y, x) array
        The input itself if nothing had to be moved.

    Raises
    ------
    ValueError
        If a shift has components of both signs, or their numbers differ.
    """
    if len(affinities) != len(neighborhood.shifts):
        raise ValueError(
            f"{len(affinities)} channels for a neighborhood of {len(neighborhood.shifts)} shifts"
        )
    if all(max(shift) <= 0 for shift in neighborhood.shifts):
        return affinities
    result = np.zeros_like(affinities)
    for channel, shift in enumerate(neighborhood.shifts):
        if max(shift) > 0 > min(shift):
            raise ValueError(f"the shift {shift} has components of both signs")
        if max(shift) <= 0:
            result[channel] = affinities[channel]
            continue
        source, target = [], []
        for n, step in zip(affinities.shape[1:], shift, strict=True):
            source.append(slice(0, max(0, n - step)))
            target.append(slice(step, max(step, n)))
        result[channel][tuple(target)] = affinities[channel][tuple(source)]
    return result


def combined(affinities: np.ndarray, neighborhood: Neighborhood, weight: float) -> np.ndarray:
    """Affinities to the direct neighbours, with what long-range channels say about them.

    The pairs of a long-range channel along an axis that cross an edge between direct neighbours
    are averaged; a thin membrane, which a noisy direct channel may miss, lies in the middle of a
    wide valley of that average.

    Parameters
    ----------
    affinities : (c, z, y, x) uint16 array
        As from `to_previous`.
    weight : float
        Of every long-range channel; that of a direct channel is 1. With 0 they are not looked at.

    Returns
    -------
    (3, z, y, x) float32 array
        0..1, to the voxel before along z, y, x.
    """
    result = affinities[neighborhood.direct].astype(np.float32)
    weights = np.ones(3, np.float32)
    for channel in neighborhood.long_range if weight > 0 else ():
        shift = neighborhood.shifts[channel]
        axis = int(np.argmax(np.abs(shift)))
        if _length(shift) != abs(shift[axis]):
            continue  # a diagonal pair crosses several edges, in an order that nobody knows
        length = abs(shift[axis])
        # Pairs that cross the edge before voxel i are stored at i ... i + length - 1.
        mean = uniform_filter1d(
            affinities[channel].astype(np.float32), length, axis=axis, mode="nearest",
            origin=-(length // 2) if length % 2 == 0 else -((length - 1) // 2),
        )
        result[axis] += weight * mean
        weights[axis] += weight
    return result / (weights * FULL)[:, None, None, None]
