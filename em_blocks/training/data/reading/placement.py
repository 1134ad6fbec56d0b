"""The voxels of a volume at the places of another one, whose voxels are whole multiples or parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from em_blocks.geometry import Box, Triple, triple


@dataclass(frozen=True)
class Placement:
    """Where the voxels of raw lie in another volume, nearest voxel by nearest voxel.

    Attributes
    ----------
    first : (3,) int
        Where the first voxel of raw begins, from the begin of the other volume: in voxels of the
        finer of the two, per axis (z, y, x).
    coarser, finer : (3,) int
        Voxels of raw per voxel of the other volume, and the reverse; one of both is 1 on every axis.
    """

    first: Triple
    coarser: Triple = (1, 1, 1)
    finer: Triple = (1, 1, 1)

    def box(self, wanted: Box) -> Box:
        """Return the voxels of the other volume that `wanted` voxels of raw need."""
        ends = [(index[0], index[-1] + 1) for index in self._indices(wanted)]
        return Box.between([int(begin) for begin, _ in ends], [int(end) for _, end in ends])

    def pick(self, values: np.ndarray, wanted: Box) -> np.ndarray:
        """Return the values at `wanted` voxels of raw from those of `box(wanted)`.

        A voxel of raw that covers n voxels takes the middle one, of two middle ones the latter.
        """
        for axis, index in enumerate(self._indices(wanted)):
            if self.coarser[axis] > 1 or self.finer[axis] > 1:
                values = values.take(index - index[0], axis=axis)
        return values

    def covered(self, shape: Sequence[int]) -> Box:
        """Return the voxels of raw that lie wholly in the other volume of `shape` voxels."""
        begins, ends = [], []
        for first, coarser, finer, size in zip(
            self.first, self.coarser, self.finer, shape, strict=True
        ):
            begins.append(-(first // finer))
            ends.append((size * coarser - first) // finer)
        return Box.between(begins, ends)

    def pieces(self, shape: Sequence[int]) -> Triple:
        """Return the voxels of raw that a chunk of `shape` voxels of the other volume fills."""
        return triple(
            max(1, n * c // f) for n, c, f in zip(shape, self.coarser, self.finer, strict=True)
        )

    def _indices(self, wanted: Box) -> list[np.ndarray]:
        return [
            (np.arange(begin, end) * finer + first + finer // 2) // coarser
            for begin, end, first, coarser, finer in zip(
                wanted.offset, wanted.end, self.first, self.coarser, self.finer, strict=True
            )
        ]
