"""Conversions that move the ends of a volume."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import Field, NonNegativeInt, model_validator

from em_blocks.config import RoiConfig
from em_blocks.errors import ConfigError
from em_blocks.geometry import Box, Frame, Roi, Triple, triple
from em_blocks.kernels.images.conversions import misfit
from em_blocks.tasks.preparation.image import Conversion, Image

Voxels3 = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]


class Crop(Conversion):
    """Keep a region of the world."""

    kind: Literal["crop"]
    roi: RoiConfig = Field(description="Region to keep, on the grid of voxels.")

    def applied(self, image: Image) -> Image:
        box = image.frame.to_box(Roi(self.roi.offset, self.roi.shape))
        if not image.box.contains(box) or box.size == 0:
            whole = image.frame.to_roi(image.box)
            raise ConfigError(
                f"The region of \"crop\" with offset {self.roi.offset} and shape {self.roi.shape} (nm, "
                f"zyx) is not inside of {image.name}, which has offset {whole.offset} and shape "
                f"{whole.shape} at that point. Correct it, or put a \"pad\" before."
            )
        return image.changed(
            frame=Frame(image.frame.voxel_size, image.frame.to_roi(box).offset), shape=box.shape,
            read=lambda part: image.read(part.shift(box.offset)),
        )


class Pad(Conversion):
    """Add voxels before and after a volume; its offset moves, so that no voxel does."""

    kind: Literal["pad"]
    before: Voxels3 = Field((0, 0, 0), description="Voxels (z, y, x) to add before the first ones.")
    after: Voxels3 = Field((0, 0, 0), description="Voxels (z, y, x) to add after the last ones.")
    value: float | Literal["mirror"] = Field(
        0, description='Of the new voxels; "mirror": as the volume goes on in a mirror in the middle of '
        "its outermost voxels."
    )

    @model_validator(mode="after")
    def _pads(self) -> Self:
        if not any((*self.before, *self.after)):
            raise ValueError("'before' and 'after' are 0, so that nothing is added; leave it out")
        return self

    def applied(self, image: Image) -> Image:
        self._check_value(image)
        offset = image.frame.to_roi(Box(triple(-b for b in self.before), (0, 0, 0))).offset
        shape = triple(
            b + n + a for b, n, a in zip(self.before, image.shape, self.after, strict=True)
        )
        return image.changed(
            frame=Frame(image.frame.voxel_size, offset), shape=shape,
            read=lambda part: self._read(image, part.shift(triple(-b for b in self.before))),
        )

    def reach(self, image: Image) -> Triple:
        if self.value != "mirror":
            return (0, 0, 0)
        # A new voxel shows one as far inside as it lies outside; in a thin volume, to and fro.
        return triple(
            min(2 * max(b, a), b + n + a)
            for b, n, a in zip(self.before, image.shape, self.after, strict=True)
        )

    def _check_value(self, image: Image) -> None:
        wrong = None if self.value == "mirror" else misfit(np.array([self.value]), image.dtype)
        if wrong is not None:
            raise ConfigError(
                f"The 'value' of \"pad\" is {wrong:g}, which is no {image.dtype}, as {image.name} holds "
                'at that point. Choose one of its values, or put a conversion "dtype" before.'
            )

    def _read(self, image: Image, box: Box) -> np.ndarray:
        """Return the values of a box in voxels of the image, which may lie outside."""
        if self.value == "mirror":
            return _mirrored(image, box)
        inside = box.intersect(image.box)
        lead = () if image.channels is None else (image.channels,)
        values = np.full((*lead, *box.shape), self.value, image.dtype)
        if inside.size:
            values[(..., *inside.relative_to(box).slices)] = image.read(inside)
        return values


def _mirrored(image: Image, box: Box) -> np.ndarray:
    places = [
        _folded(begin, end, size)
        for begin, end, size in zip(box.offset, box.end, image.shape, strict=True)
    ]
    needed = Box.between([p.min() for p in places], [p.max() + 1 for p in places])
    values = image.read(needed)
    return values[(..., *np.ix_(*(p - o for p, o in zip(places, needed.offset, strict=True))))]


def _folded(begin: int, end: int, size: int) -> np.ndarray:
    """Return the voxel that each place begin .. end shows: 2 1 0 1 2 ... of the first ones."""
    period = max(1, 2 * (size - 1))
    places = np.arange(begin, end) % period
    return np.where(places < size, places, period - places)
