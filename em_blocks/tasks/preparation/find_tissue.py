"""Voxels of tissue by their grey values and those around them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field

from em_blocks.config import Shape3, StorePath, VolumeRef
from em_blocks.geometry import Block, BlockGrid, Box, Triple
from em_blocks.kernels.images.tissue import LARGEST_COMMON, reach, tissue
from em_blocks.outputs import RunContext, VolumeOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.tasks.components.find_parts import identity_of
from em_blocks.tasks.preparation.checks import check_image
from em_blocks.tasks.preparation.contrast_options import ValueRange
from em_blocks.volumes import Volume
from em_blocks.volumes.stores import store

HalfAxis = Annotated[int, Field(ge=0, le=30)]


def _exact(radius: tuple[int, int, int]) -> tuple[int, int, int]:
    if math.lcm(*(r for r in radius if r)) > LARGEST_COMMON:
        raise ValueError(
            f"half axes whose least common multiple exceeds {LARGEST_COMMON} make an ellipsoid to which "
            "distances are not exact; choose multiples of each other, such as (5, 30, 30)"
        )
    return radius


Radius3 = Annotated[tuple[HalfAxis, HalfAxis, HalfAxis], AfterValidator(_exact)]
"""Voxels (z, y, x)."""


class FindTissue(BlockwiseTask):
    """First step of a tissue mask: 1 where grey values are those of tissue, opened and closed."""

    reads: ClassVar[tuple[str, ...]] = ("raw",)

    kind: Literal["find_tissue"]
    raw: VolumeRef
    grey_range: ValueRange
    opening: Radius3
    closing: Radius3
    output: StorePath = Field(description="Array to make.")
    chunk_shape: Shape3

    def grid(self) -> BlockGrid:
        return BlockGrid(self._raw.frame, self._raw.shape, self.block_shape)

    def inputs(self) -> dict:
        return {"raw": identity_of(self._raw)}

    def output_specs(self) -> list[VolumeOutput]:
        return [VolumeOutput(
            "tissue", self.output, "uint8", self.chunk_shape, compression=0.1,
            attributes={"labels": True},
        )]

    def outputs_root(self) -> str:
        return store.container(self.output)

    def read_context(self) -> Triple:
        return reach(self.opening, self.closing)

    def read_shape(self) -> Triple:
        return Box((0, 0, 0), self.block_shape).grow(self.read_context()).shape

    def check(self) -> None:
        check_image(self._raw, "raw")

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        raw, output, around = self._raw, Volume.open(self.output, mode="r+"), self.read_context()

        def process(block: Block, report: BlockReport) -> None:
            seen = block.write_box.grow(around).intersect(raw.box)
            with report.measure("read"):
                values = raw.read(seen)
            with report.measure("compute"):
                found = tissue(values, *self.grey_range, opening=self.opening, closing=self.closing)
                found = found[block.write_box.relative_to(seen).slices]
            with report.measure("write"):
                report.write("tissue", output, block.write_box, found.astype(np.uint8))

        yield process

    @cached_property
    def _raw(self) -> Volume:
        return Volume.open(self.raw)
