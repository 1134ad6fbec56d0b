"""Nothing floods before all of the volume has its first labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from em_blocks.config import Shape3, StorePath
from em_blocks.geometry import Block, BlockGrid, Frame, Triple
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.objects.made import OfEarlierStep
from em_blocks.tasks.reduce import Reduce
from em_blocks.volumes.stores.tables import BlockTables


class AwaitLabels(OfEarlierStep, Reduce):
    """A task in one piece that waits for the labels of all blocks, as steps run block by block.

    A flood may have to look at any other block, and would mistake labels that are still missing for
    background. The table has one row: blocks, their number.
    """

    reads: ClassVar[tuple[str, ...]] = ("labels",)

    kind: Literal["await_labels"]
    output: StorePath = Field(description="Folder of the table.")
    part_shape: Shape3 = Field(description="Voxels (z, y, x) of the blocks that are waited for.")

    def grid(self) -> BlockGrid:
        return Reduce.grid(self)

    def extent(self) -> tuple[Frame, Triple]:
        return self.place

    def shape_of_parts(self) -> Triple:
        return self.part_shape

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput("labelled", self.output)]

    def outputs_root(self) -> str:
        return self.output

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        def process(block: Block, report: BlockReport) -> None:
            with report.measure("write"):
                blocks = {"blocks": np.array([self.parts_grid.n_blocks])}
                report.write_table("labelled", BlockTables(self.output), block, blocks)

        yield process
