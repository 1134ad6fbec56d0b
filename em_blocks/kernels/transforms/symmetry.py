"""Mirrors and transposes of a volume, and what they do to affinities."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from em_blocks.geometry import Triple, triple


@dataclass(frozen=True)
class Symmetry:
    """Swap y and x (or not), then mirror some axes.

    Attributes
    ----------
    mirrored : (3,) bool
        Axes (z, y, x) that are mirrored, after the swap.
    swap_yx : bool
    """

    mirrored: tuple[bool, bool, bool] = (False, False, False)
    swap_yx: bool = False

    @property
    def _mirror(self) -> tuple[Any, ...]:
        """The index that mirrors the last three axes."""
        return (..., *(slice(None, None, -1 if m else 1) for m in self.mirrored))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """The transformed array; a view. The last three axes are (z, y, x)."""
        if self.swap_yx:
            values = values.swapaxes(-1, -2)
        return values[self._mirror]

    def undo(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `apply`; a view."""
        values = values[self._mirror]
        return values.swapaxes(-1, -2) if self.swap_yx else values

    def undo_shift(self, shift: Triple) -> Triple:
        """A voxel shift (z, y, x) of the transformed volume, as one of the original."""
        z, y, x = (-s if m else s for s, m in zip(shift, self.mirrored, strict=True))
        return (z, x, y) if self.swap_yx else (z, y, x)


def symmetries(*, transposes: bool) -> list[Symmetry]:
    """All 8 mirrors, and with `transposes` also those after a swap of y and x: 16."""
    swaps = (False, True) if transposes else (False,)
    mirrors = itertools.product((False, True), repeat=3)
    return [Symmetry(triple(m), s) for m, s in itertools.product(mirrors, swaps)]


Part = tuple[tuple, np.ndarray]
"""Index and values: ``original[index]`` is what a transformed volume says of the original one."""


def undo_all(values: np.ndarray, symmetry: Symmetry) -> list[Part]:
    """Bring channels (c, z, y, x) without a direction back: they only change their places."""
    return [((...,), symmetry.undo(values))]


def undo_affinities(
    affinities: np.ndarray, symmetry: Symmetry, neighborhood: Sequence[Triple]
) -> list[Part]:
    """Bring affinities of a transformed volume back to the original one.

    A mirror turns the edge (v, v + s) around: in the original it is stored at v + s, and
    perhaps in another channel. Voxels whose partner lies outside get no value.

    Parameters
    ----------
    affinities : (c, z, y, x) array
        Predicted on the transformed volume.
    symmetry : Symmetry
    neighborhood : sequence of c voxel shifts (z, y, x)

    Returns
    -------
    list of (index, values)
        The index is a channel of the original and its slices (z, y, x).

    Raises
    ------
    ValueError
        If the symmetry maps a shift to one that is not in the neighborhood.
    """
    parts: list[Part] = []
    for channel, shift in enumerate(neighborhood):
        values = symmetry.undo(affinities[channel])
        moved = symmetry.undo_shift(shift)
        turned = triple(-s for s in moved)
        if moved in neighborhood:
            whole = tuple(slice(0, n) for n in values.shape)
            parts.append(((neighborhood.index(moved), *whole), values))
        elif turned in neighborhood:
            source, target = _partners(values.shape, moved)
            parts.append(((neighborhood.index(turned), *target), values[source]))
        else:
            raise ValueError(f"{symmetry} maps the shift {shift} to {moved}, which no channel has")
    return parts


def undo_descriptors(descriptors: np.ndarray, symmetry: Symmetry) -> np.ndarray:
    """Bring local shape descriptors of a transformed volume back to the original one.

    Parameters
    ----------
    descriptors : (10, z, y, x) float array
        Channels as of `em_blocks.kernels.segmentation.lsd`, of the transformed volume.
    symmetry : Symmetry

    Returns
    -------
    (10, z, y, x) float array
        A copy: offsets and correlations change sign (around 0.5) under mirrors, and
        channels change places under a swap.
    """
    z, y, x = symmetry.mirrored
    turned = [z, y, x, False, False, False, z != y, z != x, y != x, False]
    values = np.array(symmetry.undo(descriptors))
    values[turned] = 1 - values[turned]
    return values[[0, 2, 1, 3, 5, 4, 7, 6, 8, 9]] if symmetry.swap_yx else values


def undo_vectors(vectors: np.ndarray, symmetry: Symmetry) -> np.ndarray:
    """Bring direction vectors of a transformed volume back to the original one.

    Parameters
    ----------
    vectors : (3, z, y, x) float array
        Components (z, y, x), of the transformed volume.
    symmetry : Symmetry

    Returns
    -------
    (3, z, y, x) float array
        A copy: components change sign under mirrors, and places under a swap.
    """
    values = np.array(symmetry.undo(vectors))
    values[list(symmetry.mirrored)] *= -1
    return values[[0, 2, 1]] if symmetry.swap_yx else values


def _partners(shape: Triple, shift: Triple) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of all voxels whose partner at `shift` is inside, and of those partners."""
    source = tuple(
        slice(max(0, -s), max(0, min(n, n - s))) for n, s in zip(shape, shift, strict=True)
    )
    target = tuple(
        slice(max(0, s), max(0, min(n, n + s))) for n, s in zip(shape, shift, strict=True)
    )
    return source, target
