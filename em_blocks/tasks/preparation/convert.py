"""Bring a volume into another form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from em_blocks.config import Shape3, StorePath, VolumeRef
from em_blocks.geometry import Block, BlockGrid, Triple, nearest_multiple, triple
from em_blocks.outputs import RunContext, VolumeOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.tasks.components.find_parts import identity_of
from em_blocks.tasks.preparation.conversions_of_place import Crop, Pad
from em_blocks.tasks.preparation.conversions_of_values import (
    Dtype,
    Invert,
    Relabel,
    RgbToGrey,
    RgbToIds,
)
from em_blocks.tasks.preparation.image import Image
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format, block_shards
from em_blocks.volumes.samples import sample_boxes
from em_blocks.volumes.stores import store

AnyConversion = Annotated[
    Crop | Pad | Invert | Dtype | Relabel | RgbToIds | RgbToGrey, Field(discriminator="kind")
]

_USUAL_BLOCK = 256
"""Voxels per axis."""


class Convert(BlockwiseTask):
    """Apply small conversions to a volume, one after the other, in one pass.

    crop, pad: another region; positions in nm stay right. invert, dtype: other grey values. relabel,
    rgb_to_ids: other ids. rgb_to_grey: one value of three.
    """

    fits_block: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]] = ("input",)

    kind: Literal["convert"]
    input: VolumeRef = Field(description="Volume to convert; is not changed.")
    conversions: tuple[AnyConversion, ...] = Field(
        min_length=1, description="What is done, in this order."
    )
    output: StorePath = Field(description="Array to make.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"
    block_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) that one block writes. Default: about 256 per axis."
    )

    def grid(self) -> BlockGrid:
        return BlockGrid(self._result.frame, self._result.shape, self._block_shape)

    def inputs(self) -> dict:
        return {"input": {**identity_of(self._input), "channels": self._input.channels}}

    def output_specs(self) -> list[VolumeOutput]:
        made = self._result
        return [VolumeOutput(
            "converted", self.output, str(made.dtype), self.chunk_shape, channels=made.channels,
            format=self.format, shard_shape=block_shards(self.format, self._block_shape),
            attributes=made.attributes,
        )]

    def outputs_root(self) -> str:
        return store.container(self.output)

    def read_reach(self) -> Triple:
        reaches = [conversion.reach(image) for conversion, image in
                   zip(self.conversions, self._images, strict=False)]
        return triple(sum(axis) for axis in zip(*reaches, strict=True))

    def check(self) -> None:
        for box in sample_boxes(self._result.shape, self.chunk_shape):
            self._result.read(box)  # values that do not fit

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        output = Volume.open(self.output, mode="r+")

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                values = self._result.read(block.write_box)
            with report.measure("write"):
                report.write("converted", output, block.write_box, values)

        yield process

    @cached_property
    def _input(self) -> Volume:
        return Volume.open(self.input)

    @cached_property
    def _images(self) -> list[Image]:
        """The input, and what each conversion makes of the one before."""
        images = [Image.of(self._input)]
        for conversion in self.conversions:
            images.append(conversion.applied(images[-1]))
        return images

    @property
    def _result(self) -> Image:
        return self._images[-1]

    @property
    def _block_shape(self) -> Triple:
        return self.block_shape or nearest_multiple((_USUAL_BLOCK,) * 3, self.chunk_shape)
