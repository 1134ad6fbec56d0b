"""Slabs that together are one volume: where they lie in it, and the faces between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from em_blocks.config import VolumeRef
from em_blocks.errors import ConfigError, GeometryError
from em_blocks.geometry import BlockGrid, Box, Frame, Triple, triple
from em_blocks.tasks.components.find_parts import check_storable, identity_of
from em_blocks.volumes import Volume

AXES = "zyx"
_SAME_VOXEL = 1e-6
"""Relative difference of voxel sizes that rounding explains: below a voxel in 10^6 of them."""


class Slab(NamedTuple):
    """A piece of the whole, with ids of its own.

    Attributes
    ----------
    number : int
        Of the slab, in the order of positions (z slowest).
    volume : Volume
    box : Box
        Its voxels in the whole.
    place : Box
        The same voxels in `volume`.
    """

    number: int
    volume: Volume
    box: Box
    place: Box

    def read(self, box: Box) -> np.ndarray:
        """Return the ids (z, y, x) of a box of the whole, which lies in the slab.

        Raises
        ------
        ConfigError
            If an id is negative, or 2^63 or larger.
        """
        inside = box.relative_to(self.box).shift(self.place.offset)
        ids = self.volume.read(inside)
        check_storable(self.volume.path, ids, inside)
        return ids


class Face(NamedTuple):
    """Voxels of a slab that have their neighbours in the next one."""

    low: Slab
    high: Slab
    axis: int
    box: Box  # of the voxels of `low`, in the whole

    @property
    def opposite(self) -> Box:
        """The voxels of `high` beside them."""
        return self.box.shift(_step(self.axis))


class Slabs:
    """Slabs that abut and leave no gap.

    Parameters
    ----------
    sources : sequence of VolumeRef
        In any order.
    cut : (3,) int, optional
        Voxels (z, y, x) of pieces of these volumes that have ids of their own; counted from the first
        voxel of each volume.

    Raises
    ------
    ConfigError
        If they have different voxels, overlap, or do not fill the box that holds them all.
    """

    def __init__(self, sources: Sequence[VolumeRef], cut: Triple | None = None):
        volumes = [Volume.open(source) for source in sources]
        for volume in volumes:
            _check_labels(volume)
        self.frame = _common_frame(volumes)
        placed = sorted(
            ((_place(volume, self.frame), volume, source)
             for volume, source in zip(volumes, sources, strict=True)),
            key=lambda item: item[0].offset,
        )
        self.volumes = [volume for _, volume, _ in placed]
        self.sources: tuple[VolumeRef, ...] = tuple(source for _, _, source in placed)
        _check_tiling([box for box, *_ in placed], self.volumes, self.frame)
        self.shape: Triple = triple(max(axis) for axis in zip(*(b.end for b, *_ in placed), strict=True))
        pieces = [
            (piece.shift(box.offset), volume, piece)
            for box, volume, _ in placed for piece in _pieces(volume, cut)
        ]
        pieces.sort(key=lambda piece: piece[0].offset)
        self.slabs = [
            Slab(number, volume, box, place) for number, (box, volume, place) in enumerate(pieces)
        ]

    def __len__(self) -> int:
        return len(self.slabs)

    def identity(self) -> list[dict]:
        """Return what decides the ids, slab by slab, as JSON."""
        return [identity_of(volume) for volume in self.volumes]

    def near(self, box: Box) -> list[Slab]:
        """Return the slabs that have voxels in a box of the whole."""
        begins, ends = self._corners
        meets = (begins < box.end).all(axis=1) & (ends > box.offset).all(axis=1)
        return [self.slabs[number] for number in np.flatnonzero(meets).tolist()]

    def faces(self, box: Box) -> Iterator[Face]:
        """Yield the parts in a box of all faces, of the voxels on the lower side of each."""
        slabs = self.near(box.grow((1, 1, 1)))
        for low in slabs:
            for high in slabs:
                for axis in range(3):
                    back = triple(-step for step in _step(axis))
                    shared = low.box.intersect(high.box.shift(back)).intersect(box)
                    if low is not high and shared.size:
                        yield Face(low, high, axis, shared)

    @cached_property
    def _corners(self) -> tuple[np.ndarray, np.ndarray]:
        return (
            np.array([slab.box.offset for slab in self.slabs]),
            np.array([slab.box.end for slab in self.slabs]),
        )


def _step(axis: int) -> Triple:
    return triple(int(other == axis) for other in range(3))


def _pieces(volume: Volume, cut: Triple | None) -> list[Box]:
    if cut is None:
        return [volume.box]
    return [block.write_box for block in BlockGrid(volume.frame, volume.shape, cut).blocks()]


def _check_labels(volume: Volume) -> None:
    if volume.channels is not None or volume.dtype.kind not in "ui":
        channels = "" if volume.channels is None else f" in {volume.channels} channels"
        raise ConfigError(
            f"The slab {volume.path} holds {volume.dtype}{channels}, but one integer id per voxel "
            "(z, y, x) is needed. Name segmentations under 'slabs', not raw data or predictions."
        )


# -- where they lie ----------------------------------------------------------------------------


def _common_frame(volumes: Sequence[Volume]) -> Frame:
    """Return the frame of the whole: the voxels of the slabs, from the first corner of all."""
    first = volumes[0]
    for volume in volumes[1:]:
        if not np.allclose(volume.voxel_size, first.voxel_size, rtol=_SAME_VOXEL, atol=0):
            raise ConfigError(
                f"The slabs have different voxels: those of {volume.path} are {volume.voxel_size} nm "
                f"(z, y, x), those of {first.path} {first.voxel_size} nm, so their faces do not fit. "
                'Bring them to one voxel size, or correct it by {"path": ..., "voxel_size": ...}.'
            )
    corner = triple(min(axis) for axis in zip(*(volume.offset for volume in volumes), strict=True))
    return Frame(first.voxel_size, corner)


def _place(volume: Volume, frame: Frame) -> Box:
    try:
        return frame.to_box(volume.roi)
    except GeometryError as error:
        raise ConfigError(
            f"The slab {volume.path} at {volume.offset} nm (z, y, x) does not lie on the voxels of the "
            f"others, which are {frame.voxel_size} nm and begin at {frame.offset} nm, so that no voxel "
            'of it has a neighbour. Correct its place by {"path": ..., "offset": ...}.'
        ) from error


def _check_tiling(boxes: Sequence[Box], volumes: Sequence[Volume], frame: Frame) -> None:
    """Raise `ConfigError` unless boxes fill the one that holds them all, each voxel once.

    Parameters
    ----------
    boxes : sequence of Box
        Of the volumes, in the order of positions.
    """
    for number, (box, volume) in enumerate(zip(boxes, volumes, strict=True)):
        for other, beside in zip(boxes[:number], volumes, strict=False):
            shared = box.intersect(other)
            if shared.size:
                raise ConfigError(
                    f"The slabs {beside.path} and {volume.path} overlap: both hold the region at "
                    f"{frame.to_roi(shared).offset} nm, {shared.shape} voxels (z, y, x). A voxel of the "
                    "result would have two ids. Correct their places by "
                    '{"path": ..., "offset": ...}, or cut one of them by `em-blocks convert`.'
                )
    whole = Box.between((0, 0, 0), np.max([box.end for box in boxes], axis=0).tolist())
    filled = sum(box.size for box in boxes)
    if filled < whole.size:
        raise ConfigError(
            f"The slabs do not abut: {_first_gap(boxes, volumes, frame)}. They fill {filled} of the "
            f"{whole.size} voxels of the box that holds them all, {whole.shape} (z, y, x). Objects "
            "cannot be followed over a gap. Add the slabs that are missing, or correct the places "
            'of those that are there by {"path": ..., "offset": ...}.'
        )


def _first_gap(boxes: Sequence[Box], volumes: Sequence[Volume], frame: Frame) -> str:
    """Describe the first two slabs in a row along one axis that have a gap between them."""
    for low, high, a, b in zip(boxes, boxes[1:], volumes, volumes[1:], strict=False):
        apart = [n for n in range(3) if low.end[n] < high.offset[n] or high.end[n] < low.offset[n]]
        if len(apart) == 1:
            (axis,) = apart
            end, begin = frame.to_roi(low).end[axis], frame.to_roi(high).offset[axis]
            return (
                f"{a.path} ends at {AXES[axis]} = {end:g} nm, but {b.path} begins at {begin:g} nm, "
                f"{high.offset[axis] - low.end[axis]} voxels later"
            )
        if low.shape[1:] != high.shape[1:] or low.offset[1:] != high.offset[1:]:
            return (
                f"{a.path} covers {low.shape[1:]} voxels (y, x) from {low.offset[1:]} on, {b.path} "
                f"{high.shape[1:]} from {high.offset[1:]} on"
            )
    return "some voxels between them are in none"
