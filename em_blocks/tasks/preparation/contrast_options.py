"""What both steps of an equalisation know: the image, its range, the regions."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, ClassVar

import numpy as np
from pydantic import AfterValidator, Field

from em_blocks.config import Shape3, VolumeRef
from em_blocks.errors import ConfigError
from em_blocks.geometry import Box, Triple, triple
from em_blocks.kernels.images.grey_values import GREY_VALUES, to_grey
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.components.find_parts import identity_of
from em_blocks.tasks.preparation.checks import check_image, check_mask, identity_or_none
from em_blocks.volumes import Volume
from em_blocks.volumes.nearest import read_nearest
from em_blocks.volumes.samples import sample_boxes


def _ascending(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] >= values[1]:
        raise ValueError("the first value of a range must be below the second one")
    return values


ValueRange = Annotated[tuple[float, float], AfterValidator(_ascending)]
"""Lowest and highest value."""

ClipLimit = Annotated[float, Field(gt=0, le=1)]


class ContrastTask(BlockwiseTask):
    """A step of an equalisation, over the blocks of an image."""

    reads: ClassVar[tuple[str, ...]] = ("raw", "tissue")

    raw: VolumeRef
    tissue: VolumeRef | None = None
    value_range: ValueRange
    kernel_shape: Shape3

    def inputs(self) -> dict:
        return {"raw": identity_of(self.image), "tissue": identity_or_none(self.tissue)}

    def check(self) -> None:
        check_image(self.image, "raw")
        if self.tissue is not None:
            check_mask(Volume.open(self.tissue), "mask", self.image)

    @cached_property
    def image(self) -> Volume:
        """The volume that is equalised."""
        return Volume.open(self.raw)

    @property
    def n_regions(self) -> Triple:
        """Number of contextual regions (z, y, x)."""
        return triple(-(-n // k) for n, k in zip(self.image.shape, self.kernel_shape, strict=True))

    def grey_in(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Return grey values (z, y, x) uint8 of a box, and which of its voxels count."""
        values = self.image.read(box)
        counted = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
        if self._mask is not None:
            counted &= read_nearest(self._mask, self.image.frame, box) != 0
        return to_grey(values, *self.value_range), counted

    @cached_property
    def _mask(self) -> Volume | None:
        return None if self.tissue is None else Volume.open(self.tissue)


def range_of(raw: Volume, stated: tuple[float, float] | None) -> tuple[float, float]:
    """Return the range that is mapped to grey values: as stated, else that of 8 bits.

    Raises
    ------
    ConfigError
        If the image has more than 8 bits, and nothing states its range.
    """
    if stated is not None:
        return stated
    if raw.dtype == np.uint8:
        return (0.0, GREY_VALUES - 1.0)
    check_image(raw, "raw")
    found = np.concatenate([raw.read(box).ravel() for box in sample_boxes(raw.shape, raw.piece_shape)])
    found = found[np.isfinite(found)]
    low, high = np.percentile(found, [0.1, 99.9]) if found.size else (0, 1)
    if raw.dtype.kind != "f":
        low, high = int(low), math.ceil(high)
    raise ConfigError(
        f"The key 'value_range' is missing, and raw is {raw.path} of {raw.dtype}: the result has "
        f"{GREY_VALUES} grey values, and which values become the darkest and the brightest of them must "
        "be the same in all volumes of a project. 99.8 % of the voxels in a few sampled chunks lie in "
        f'"value_range": [{low:g}, {high:g}].'
    )
