"""Nothing floods before all of the volume has its first labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import numpy as np

from em_blocks.geometry import Block
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.objects.made import ReducesEarlierStep
from em_blocks.volumes.stores.tables import BlockTables


class AwaitLabels(ReducesEarlierStep):
    """A task in one piece that waits for the labels of all blocks, as steps run block by block.

    A flood may have to look at any other block, and would mistake labels that are still missing for
    background. The table has one row: blocks, their number.
    """

    reads: ClassVar[tuple[str, ...]] = ("labels",)

    kind: Literal["await_labels"]

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput("labelled", self.output)]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        def process(block: Block, report: BlockReport) -> None:
            with report.measure("write"):
                blocks = {"blocks": np.array([self.parts_grid.n_blocks])}
                report.write_table("labelled", BlockTables(self.output), block, blocks)

        yield process
