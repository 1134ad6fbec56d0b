"""How grey values are distributed in the regions of an image, and what follows for its contrast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
from pydantic import Field

from em_blocks.config import StorePath
from em_blocks.errors import BlockAlignmentError
from em_blocks.geometry import Block, BlockGrid, nearest_multiple
from em_blocks.kernels.images.contrast_maps import contrast_maps, region_histograms
from em_blocks.kernels.images.grey_values import GREY_VALUES
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.preparation.contrast_options import ClipLimit, ContrastTask
from em_blocks.volumes.stores.tables import BlockTables

_ROW_BYTES, _BYTES_PER_ROW = 2 * GREY_VALUES, 40  # of a map; what a row of other tables is taken to have


class MeasureContrast(ContrastTask):
    """First step of an equalisation: a table per block, with one row (`map`) per region.

    A block is whole regions, so that a region is in one table whatever the blocks of the result are.
    """

    kind: Literal["measure_contrast"]
    output: StorePath = Field(description="Folder of the tables.")
    clip_limit: ClipLimit

    def grid(self) -> BlockGrid:
        return BlockGrid(self.image.frame, self.image.shape, self.block_shape)

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput(
            "maps", self.output,
            rows_per_voxel=_ROW_BYTES / _BYTES_PER_ROW / np.prod(self.kernel_shape, dtype=float),
        )]

    def outputs_root(self) -> str:
        return self.output

    def check(self) -> None:
        super().check()
        if any(b % k for b, k in zip(self.block_shape, self.kernel_shape, strict=True)):
            raise BlockAlignmentError(
                f"block_shape {self.block_shape} is not a multiple of kernel_shape {self.kernel_shape} "
                "(voxels, zyx), so a region would be in the tables of two blocks. Use "
                f"{nearest_multiple(self.block_shape, self.kernel_shape)}."
            )

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        tables = BlockTables(self.output)

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                grey, counted = self.grey_in(block.write_box)
            with report.measure("compute"):
                histograms = region_histograms(grey, counted, self.kernel_shape)
                maps = contrast_maps(histograms, self.clip_limit)
            with report.measure("write"):
                columns = {"map": maps.reshape(-1, GREY_VALUES)}
                report.write_table("maps", tables, block, columns)
            report.counts["counted_voxels"] = int(histograms.sum())

        yield process
