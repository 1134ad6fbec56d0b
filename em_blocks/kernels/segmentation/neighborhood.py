"""Affinities of any neighborhood, brought into one form for watershed and region graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from em_blocks.geometry import Triple, triple

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
    def reach(self) -> Triple:
        """Largest shift per axis, voxels (z, y, x)."""
        return triple(int(n) for n in np.abs(self.shifts).max(axis=0))


def _length(shift: Sequence[int]) -> int:
    return sum(map(abs, shift))


class OutOfRangeError(ValueError):
    """An affinity that is none.

    Attributes
    ----------
    index : tuple of int
        The first one, in the array.
    value : float
    """

    def __init__(self, index: tuple[int, ...], value: float):
        super().__init__(f"affinities must lie in 0..1, got {value:.4g} at {index}")
        self.index, self.value = index, value


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
    OutOfRangeError
        If floats lie outside of 0..1, or are NaN.
    ValueError
        If the dtype is another.
    """
    if values.dtype == np.uint8:
        return values * np.uint16(FULL // 255)
    if values.dtype == np.uint16:
        return values
    if values.dtype.kind != "f":
        raise ValueError(f"affinities must be uint8, uint16 or float, got {values.dtype}")
    if values.size and not (values.min() >= -1e-6 and values.max() <= 1 + 1e-6):  # also true for nan
        wrong = np.argwhere(~((values >= -1e-6) & (values <= 1 + 1e-6)))
        raise OutOfRangeError(tuple(map(int, wrong[0])), float(values[tuple(wrong[0])]))
    # In float32 at least: 65535 is infinite in float16.
    values = np.clip(values, 0, 1, dtype=np.result_type(values, np.float32))
    return np.rint(values * FULL).astype(np.uint16)


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


def combined(
    affinities: np.ndarray, neighborhood: Neighborhood, weight: float, mask: np.ndarray | None = None
) -> np.ndarray:
    """Affinities to the direct neighbours, with what long-range channels say about them.

    The pairs of a long-range channel along an axis that cross an edge between direct neighbours
    are averaged; a thin membrane, which a noisy direct channel may miss, lies in the middle of a
    wide valley of that average. A channel of which no pair crosses an edge is left out there.

    Parameters
    ----------
    affinities : (c, z, y, x) uint16 array
        As from `to_previous`.
    weight : float
        Of every long-range channel; that of a direct channel is 1. With 0 they are not looked at.
    mask : (z, y, x) bool array, optional
        Pairs count only if both of their voxels are in it; beyond the border of a volume there is
        nothing that an affinity could have been predicted from.

    Returns
    -------
    (3, z, y, x) float32 array
        0..1, to the voxel before along z, y, x.
    """
    result = affinities[neighborhood.direct].astype(np.float32)
    shape = affinities.shape[1:]
    mask = np.ones(shape, bool) if mask is None else np.ascontiguousarray(mask)
    for axis in range(3):
        weights = np.ones(shape, np.float32)
        for channel in neighborhood.long_range if weight > 0 else ():
            length = abs(neighborhood.shifts[channel][axis])
            if length != _length(neighborhood.shifts[channel]):
                continue  # a diagonal pair crosses several edges, in an unknown order
            # Before and after the axis as one: what lies beside each other is added up together.
            lines = -1, shape[axis], math.prod(shape[axis + 1 :])
            values = np.ascontiguousarray(affinities[channel])
            if values.size:
                _add_crossing(
                    values.reshape(lines), mask.reshape(lines), length, np.float32(weight),
                    result[axis].reshape(lines), weights.reshape(lines),
                )
        result[axis] /= weights * FULL
    return result


def attached(affinities: np.ndarray, neighborhood: Neighborhood, edges: np.ndarray) -> np.ndarray:
    """Voxels that any affinity above 0 joins to another one; the others lie in empty resin.

    Voxels at the border of the array, whose next neighbour is not in it, count as joined: what is not
    known must not make them empty.

    Parameters
    ----------
    affinities : (c, z, y, x) uint16 array
        As from `to_previous`.
    edges : (3, z, y, x) float32 array
        As from `combined`: what long-range pairs say about a voxel that they cross counts too.

    Returns
    -------
    (z, y, x) bool array
    """
    found = np.zeros(affinities.shape[1:], bool)
    for channel, shift in zip(affinities, neighborhood.shifts, strict=True):
        _attach(found, channel.astype(bool), shift)
    for axis, edge in enumerate(edges):
        _attach(found, edge > 0, np.eye(3, dtype=int)[axis])
        np.moveaxis(found, axis, 0)[[0, -1] if found.size else []] = True
    return found


def _attach(found: np.ndarray, joins: np.ndarray, shift: Sequence[int]) -> None:
    """Mark both voxels of every pair that joins, stored at the later one."""
    found |= joins
    later = tuple(slice(abs(step), None) for step in shift)
    earlier = tuple(
        slice(0, max(0, n - abs(step))) for n, step in zip(found.shape, shift, strict=True)
    )
    found[earlier] |= joins[later]


@njit(cache=True, nogil=True)
def _add_crossing(values, mask, length, weight, result, weights):
    """Add the weighted mean of the pairs that cross each edge to `result`, the weight to `weights`.

    Arrays are (lines, n, lines), `length` is that of a pair along the middle axis. Sums are of
    integers, so that they do not depend on where a line begins.
    """
    outer, n, inner = values.shape
    for o in range(outer):
        total, count = np.zeros(inner, np.int64), np.zeros(inner, np.int32)
        for i in range(1, n):
            # Pairs that cross the edge before i are stored at i ... i + length - 1.
            new, old = i + length - 1, i - 1
            for q in range(inner):
                if new < n and mask[o, new, q] and mask[o, new - length, q]:
                    total[q] += values[o, new, q]
                    count[q] += 1
                if old >= length and mask[o, old, q] and mask[o, old - length, q]:
                    total[q] -= values[o, old, q]
                    count[q] -= 1
                if count[q] > 0:
                    result[o, i, q] += weight * np.float32(total[q] / count[q])
                    weights[o, i, q] += weight
