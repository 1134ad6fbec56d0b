"""Sizes of valid (unpadded) 3-D U-Nets: context, tile factor, legal tiles.

A valid U-Net computes the same value for a voxel wherever the tile around it
begins, as long as tiles begin at multiples of the product of its poolings. All
of this is arithmetic on the kernel and pooling shapes, so it needs no tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from em_blocks.errors import GeometryError
from em_blocks.geometry import Triple, triple


@dataclass(frozen=True)
class UNetShapes:
    """Geometry of a valid U-Net whose levels convolve alike on both ways.

    Parameters
    ----------
    kernels : sequence of sequences of (z, y, x)
        Convolution kernels of every level, finest first, voxels. A level uses
        them on its way down and again on its way up, the coarsest level once.
    pooling : sequence of (z, y, x)
        Pooling between consecutive levels: one entry fewer than `kernels`.

    Raises
    ------
    GeometryError
        If the lengths do not fit, a kernel is even (the context would differ
        between the two sides) or a number is below 1.
    """

    kernels: Sequence[Sequence[Triple]]
    pooling: Sequence[Triple]

    def __post_init__(self):
        if len(self.pooling) != len(self.kernels) - 1:
            raise GeometryError(
                f"A U-Net of {len(self.kernels)} levels has {len(self.kernels) - 1} poolings "
                f"between them, but {len(self.pooling)} were given. Give one entry of `kernels` "
                "per level and one of `pooling` per step between two levels."
            )
        sizes = [size for level in self.kernels for kernel in level for size in kernel]
        if any(size < 1 or size % 2 == 0 for size in sizes):
            raise GeometryError(
                f"Kernels {self.kernels} must be odd and at least 1 along every axis: an even "
                "kernel needs more context on one side than on the other. Use 1, 3 or 5."
            )
        if any(step < 1 for pool in self.pooling for step in pool):
            raise GeometryError(f"Poolings {self.pooling} must be at least 1 along every axis.")

    @property
    def tile_factor(self) -> Triple:
        """Return the product of the poolings: output tiles are multiples of it, voxels."""
        return triple(prod(pool[axis] for pool in self.pooling) for axis in range(3))

    @property
    def context(self) -> Triple:
        """Return the input voxels beyond the output, per side (z, y, x)."""
        return triple(
            (
                self.tile_factor[axis] * (self._extra(axis) + self._lost(-1, axis))
                + self._lost_up(axis)
            )
            // 2
            for axis in range(3)
        )

    @property
    def crop(self) -> Triple:
        """Return the voxels cut per side from the finest up-sampled map.

        What the convolutions leave need not be a whole number of factors; the
        rest is cut before the finest convolutions, where it costs nothing.
        """
        return triple(
            (self.tile_factor[axis] * self._extra(axis) - self._lost_up(axis)) // 2
            for axis in range(3)
        )

    def input_shape(self, output_shape: Sequence[int]) -> Triple:
        """Return the input voxels (z, y, x) for an output tile of `output_shape`.

        Raises
        ------
        GeometryError
            If the network cannot give that shape; names the nearest it can.
        """
        self.check_output(output_shape)
        return triple(size + 2 * side for size, side in zip(output_shape, self.context, strict=True))

    def output_shape(self, input_shape: Sequence[int]) -> Triple:
        """Return the output voxels (z, y, x) for an input of `input_shape`; raises `GeometryError`."""
        output = triple(
            size - 2 * side for size, side in zip(input_shape, self.context, strict=True)
        )
        if not self._legal(output):
            smaller, larger = self._neighbours(output)
            raise GeometryError(
                f"An input of {tuple(input_shape)} voxels (zyx) does not fit the network: minus "
                f"{self.context} voxels of context per side it leaves {output}, which is not a "
                f"positive multiple of {self.tile_factor}, the product of the poolings. Nearest "
                f"legal inputs: {self.input_shape(smaller)} or {self.input_shape(larger)}."
            )
        return output

    def check_output(self, output_shape: Sequence[int]) -> None:
        """Raise `GeometryError` unless the network can give `output_shape` voxels."""
        if not self._legal(output_shape):
            smaller, larger = self._neighbours(output_shape)
            raise GeometryError(
                f"The network cannot give an output tile of {tuple(output_shape)} voxels (zyx): "
                f"tiles are positive multiples of {self.tile_factor}, the product of its "
                "poolings, or a voxel's value would depend on where its tile begins. Use "
                f"{smaller} or {larger}."
            )

    def _legal(self, output_shape: Sequence[int]) -> bool:
        return len(output_shape) == 3 and all(
            size > 0 and size % factor == 0
            for size, factor in zip(output_shape, self.tile_factor, strict=True)
        )

    def _neighbours(self, output_shape: Sequence[int]) -> tuple[Triple, Triple]:
        """Nearest legal output shapes, not larger and not smaller along any axis."""
        pairs = list(zip(output_shape, self.tile_factor, strict=True))
        smaller = triple(max(size // factor, 1) * factor for size, factor in pairs)
        larger = triple(max(-(-size // factor), 1) * factor for size, factor in pairs)
        return smaller, larger

    def _lost(self, level: int, axis: int) -> int:
        """Voxels of the level that one pass of its convolutions takes away."""
        return sum(kernel[axis] - 1 for kernel in self.kernels[level])

    def _lost_up(self, axis: int) -> int:
        """Input voxels taken away on the way up (and as many on the way down)."""
        scale, lost = 1, 0
        for level, pool in enumerate(self.pooling):
            lost += scale * self._lost(level, axis)
            scale *= pool[axis]
        return lost

    def _extra(self, axis: int) -> int:
        """Coarsest voxels beyond the output that the way up needs, both sides.

        The smallest number that covers the loss and leaves the same crop on
        both sides.
        """
        factor, lost = self.tile_factor[axis], self._lost_up(axis)
        extra = -(-lost // factor)
        return extra if (factor * extra - lost) % 2 == 0 else extra + 1
