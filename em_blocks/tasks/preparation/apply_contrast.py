"""An image whose contrast is that of the regions around each voxel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from em_blocks.config import Shape3, StorePath
from em_blocks.geometry import Block, BlockGrid, Box, Frame, Triple, triple
from em_blocks.kernels.images.equalize import equalize, regions_around
from em_blocks.kernels.images.grey_values import GREY_VALUES
from em_blocks.outputs import RunContext, TableOutput, VolumeOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.preparation.contrast_options import ClipLimit, ContrastTask
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format, block_shards
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns


class ApplyContrast(ContrastTask):
    """Last step of an equalisation: grey values, by the maps of the regions around each voxel."""

    reads: ClassVar[tuple[str, ...]] = ("raw", "tissue", "maps")

    kind: Literal["apply_contrast"]
    maps: StorePath = Field(description="Folder of the tables that `measure_contrast` wrote.")
    part_shape: Shape3 = Field(description="Voxels (z, y, x) of the blocks that have a table each.")
    clip_limit: ClipLimit
    output: StorePath = Field(description="Array to make.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"

    def grid(self) -> BlockGrid:
        return BlockGrid(self.image.frame, self.image.shape, self.block_shape)

    def inputs(self) -> dict:
        return super().inputs() | {"maps": TableOutput("maps", self.maps).stored_fingerprint()}

    def output_specs(self) -> list[VolumeOutput]:
        return [VolumeOutput(
            "equalized", self.output, "uint8", self.chunk_shape, format=self.format,
            shard_shape=block_shards(self.format, self.block_shape),
            attributes={"equalized": {
                "method": "CLAHE", "kernel_shape": list(self.kernel_shape),
                "clip_limit": self.clip_limit, "value_range": list(self.value_range),
            }},
        )]

    def outputs_root(self) -> str:
        return store.container(self.output)

    @classmethod
    def locations(cls) -> set[str]:
        return {"output", "maps"}

    def read_context(self) -> Triple:
        # The regions around a voxel at the border of a block have voxels that near, or nearer.
        return triple(k // 2 for k in self.kernel_shape)

    def read_shape(self) -> Triple:
        return self.block_shape

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        output, shape = Volume.open(self.output, mode="r+"), self.image.shape
        maps = _Maps(self.maps, self.n_regions, self._part_regions)

        def process(block: Block, report: BlockReport) -> None:
            box = block.write_box
            with report.measure("read"):
                grey, counted = self.grey_in(box)
                found = maps.read(regions_around(box, self.kernel_shape, shape))
            with report.measure("compute"):
                values = equalize(
                    grey, counted, found, box=box, kernel_shape=self.kernel_shape, shape=shape
                )
            with report.measure("write"):
                report.write("equalized", output, box, values)

        yield process

    @property
    def _part_regions(self) -> Triple:
        return triple(p // k for p, k in zip(self.part_shape, self.kernel_shape, strict=True))


class _Maps:
    """The maps of regions, from the tables of blocks; those of the block before are kept."""

    def __init__(self, folder: str, n_regions: Triple, part_regions: Triple):
        self._tables, self._loaded = BlockTables(folder), dict[str, Columns]()
        # A grid of regions instead of voxels.
        self._parts = BlockGrid(Frame((1.0, 1.0, 1.0)), n_regions, part_regions)

    def read(self, regions: Box) -> np.ndarray:
        """Return the maps (rz, ry, rx, 256) uint16 of a box of regions."""
        result = np.empty((*regions.shape, GREY_VALUES), np.uint16)
        parts = list(self._parts.within(regions))
        self._load([part.key for part in parts])
        for part in parts:
            box = part.write_box
            maps = self._loaded[part.key]["map"].reshape((*box.shape, GREY_VALUES))
            shared = box.intersect(regions)
            result[shared.relative_to(regions).slices] = maps[shared.relative_to(box).slices]
        return result

    def _load(self, keys: list[str]) -> None:
        self._loaded = {
            key: self._loaded.get(key) or self._tables.read(key, ["map"]) for key in keys
        }
