"""Voxel boxes, world ROIs, and the frame that converts between them.

Two types keep two units apart: a `Box` counts voxels of one volume, a `Roi`
is a region of the world in nm. Only a `Frame` (voxel size and offset of one
volume) converts, so a bare tuple never has to be guessed at. Axes are always
(z, y, x).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from em_blocks.errors import GeometryError

Triple = tuple[int, int, int]
Nm3 = tuple[float, float, float]

# World positions are floats (4.6 nm voxels exist); a thousandth of a voxel is far above
# rounding errors of petascale offsets and far below any real misalignment.
TOLERANCE_VOXELS = 1e-3


def triple(values: Iterable[Any]) -> tuple[Any, Any, Any]:
    """Return three values, one per axis (z, y, x), as a tuple of that length."""
    z, y, x = values
    return z, y, x


def nearest_multiple(shape: Iterable[float], unit: Iterable[int]) -> Triple:
    """Return the multiple of `unit` next to `shape` along every axis, at least once `unit`."""
    return triple(max(1, round(n / u)) * u for n, u in zip(shape, unit, strict=True))


def _triple(values, kind: type, name: str) -> tuple:
    values = tuple(kind(v) for v in values)
    if len(values) != 3:
        raise GeometryError(f"{name} must have three values (z, y, x), got {values}")
    return values


@dataclass(frozen=True)
class Box:
    """A box of voxels of one volume; the end is excluded.

    Parameters
    ----------
    offset : (3,) int
        First voxel (z, y, x).
    shape : (3,) int
        Size in voxels (z, y, x).
    """

    offset: Triple
    shape: Triple

    def __post_init__(self):
        object.__setattr__(self, "offset", _triple(self.offset, int, "offset"))
        object.__setattr__(self, "shape", _triple(self.shape, int, "shape"))
        if min(self.shape) < 0:
            raise GeometryError(f"a box cannot have the negative shape {self.shape}")

    @classmethod
    def between(cls, begin, end) -> Box:
        """Return the box from `begin` to `end` (excluded); empty where end < begin."""
        begin, end = tuple(begin), tuple(end)
        return cls(begin, tuple(max(0, e - b) for b, e in zip(begin, end, strict=True)))

    @property
    def end(self) -> Triple:
        return triple(o + s for o, s in zip(self.offset, self.shape, strict=True))

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        return triple(slice(o, e) for o, e in zip(self.offset, self.end, strict=True))

    def intersect(self, other: Box) -> Box:
        return Box.between(
            map(max, self.offset, other.offset),
            map(min, self.end, other.end),
        )

    def contains(self, other: Box) -> bool:
        return self.intersect(other) == other

    def grow(self, context: Triple) -> Box:
        """Add `context` voxels on both sides of each axis."""
        return Box(
            triple(o - c for o, c in zip(self.offset, context, strict=True)),
            triple(s + 2 * c for s, c in zip(self.shape, context, strict=True)),
        )

    def shift(self, by: Triple) -> Box:
        return Box(triple(o + b for o, b in zip(self.offset, by, strict=True)), self.shape)

    def relative_to(self, other: Box) -> Box:
        """Return the same voxels, counted from the first corner of `other`."""
        return self.shift(triple(-o for o in other.offset))


@dataclass(frozen=True)
class Roi:
    """A region of the world, nm (z, y, x); the end is excluded."""

    offset: Nm3
    shape: Nm3

    def __post_init__(self):
        object.__setattr__(self, "offset", _triple(self.offset, float, "offset_nm"))
        object.__setattr__(self, "shape", _triple(self.shape, float, "shape_nm"))

    @property
    def end(self) -> Nm3:
        return triple(o + s for o, s in zip(self.offset, self.shape, strict=True))


@dataclass(frozen=True)
class Frame:
    """Where the voxels of one volume lie in the world.

    Parameters
    ----------
    voxel_size : (3,) float
        nm per voxel (z, y, x); need not be integers.
    offset : (3,) float
        World position of the first corner of voxel (0, 0, 0), nm (z, y, x).
    """

    voxel_size: Nm3
    offset: Nm3 = (0.0, 0.0, 0.0)

    def __post_init__(self):
        object.__setattr__(self, "voxel_size", _triple(self.voxel_size, float, "voxel_size"))
        object.__setattr__(self, "offset", _triple(self.offset, float, "offset"))
        if not all(v > 0 and math.isfinite(v) for v in self.voxel_size):
            raise GeometryError(f"voxel_size must be positive nm (z, y, x), got {self.voxel_size}")

    def to_roi(self, box: Box) -> Roi:
        """Return the region of the world that `box` covers."""
        return Roi(
            triple(o + b * v for o, b, v in zip(self.offset, box.offset, self.voxel_size, strict=True)),
            triple(s * v for s, v in zip(box.shape, self.voxel_size, strict=True)),
        )

    def to_box(self, roi: Roi) -> Box:
        """Return the voxels that `roi` covers exactly.

        Raises
        ------
        GeometryError
            If a face of `roi` does not lie between two voxels.
        """
        begin, end = self._voxels(roi.offset), self._voxels(roi.end)
        nearest = Box.between(map(round, begin), map(round, end))
        error = max(
            abs(a - round(a)) for a in itertools.chain(begin, end)
        )
        if error > TOLERANCE_VOXELS:
            near = self.to_roi(Box(nearest.offset, triple(max(1, n) for n in nearest.shape)))
            raise GeometryError(
                f"The ROI with offset {roi.offset} and shape {roi.shape} (nm, zyx) does not lie on "
                f"the voxel grid of voxel size {self.voxel_size} nm and offset {self.offset} nm. "
                "Rounding it would shift every result by a part of a voxel; use offset "
                f"{near.offset} and shape {near.shape}."
            )
        return nearest

    def enclosing_box(self, roi: Roi) -> Box:
        """Return the smallest box of voxels that covers `roi` (for coarser masks)."""
        return Box.between(
            (math.floor(v + TOLERANCE_VOXELS) for v in self._voxels(roi.offset)),
            triple(math.ceil(v - TOLERANCE_VOXELS) for v in self._voxels(roi.end)),
        )

    def _voxels(self, position: Nm3) -> list[float]:
        return [
            (p - o) / v for p, o, v in zip(position, self.offset, self.voxel_size, strict=True)
        ]


@dataclass(frozen=True)
class Block:
    """One unit of work: a box of the block grid, cut at the grid's end.

    Parameters
    ----------
    index : (3,) int
        Place in the block grid (z, y, x); dense, starting at 0.
    write_box : Box
        The voxels of the output volume that this block alone writes.
    """

    index: Triple
    write_box: Box

    @property
    def key(self) -> str:
        """``zi/yi/xi``, the block's part of its database id."""
        return "/".join(map(str, self.index))


@dataclass(frozen=True)
class BlockGrid:
    """The blocks of one volume: ``fit="shrink"``, so border blocks are cut, none is dropped.

    Parameters
    ----------
    frame : Frame
        Of the output volume.
    volume_shape, block_shape : (3,) int
        Voxels (z, y, x).
    """

    frame: Frame
    volume_shape: Triple
    block_shape: Triple

    @property
    def shape(self) -> Triple:
        """Number of blocks along (z, y, x)."""
        return triple(
            -(-v // b) for v, b in zip(self.volume_shape, self.block_shape, strict=True)
        )

    @property
    def n_blocks(self) -> int:
        return math.prod(self.shape)

    def block(self, index: Triple) -> Block:
        """Return the block at `index` (z, y, x); raises `GeometryError` if there is none."""
        index = _triple(index, int, "block index")
        if not all(0 <= i < n for i, n in zip(index, self.shape, strict=True)):
            raise GeometryError(
                f"there is no block {'/'.join(map(str, index))}: the grid has {self.shape} blocks "
                "(z, y, x), counted from 0"
            )
        corner = triple(i * b for i, b in zip(index, self.block_shape, strict=True))
        whole = Box((0, 0, 0), self.volume_shape)
        return Block(index, Box(corner, self.block_shape).intersect(whole))

    def blocks(self) -> Iterator[Block]:
        """Yield all blocks, z slowest."""
        return (self.block(triple(index)) for index in itertools.product(*map(range, self.shape)))

    def within(self, box: Box) -> Iterator[Block]:
        """Yield the blocks that have voxels in `box`, z slowest."""
        inside = box.intersect(Box((0, 0, 0), self.volume_shape))
        if inside.size == 0:
            return iter(())
        ranges = (
            range(begin // b, -(-end // b))
            for begin, end, b in zip(inside.offset, inside.end, self.block_shape, strict=True)
        )
        return (self.block(triple(index)) for index in itertools.product(*ranges))
