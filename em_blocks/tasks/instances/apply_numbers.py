"""Write the instances of every block with their final labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from em_blocks.config import Shape3, StorePath
from em_blocks.geometry import Block
from em_blocks.outputs import RunContext, TableOutput, VolumeOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.objects.made import OfEarlierStep
from em_blocks.tasks.segmentation.look_up_table import relabelled
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format, block_shards
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns


class ApplyNumbers(OfEarlierStep):
    """Write the labels of every block as `NumberInstances` numbers them."""

    reads: ClassVar[tuple[str, ...]] = ("labels", "numbers")

    kind: Literal["apply_numbers"]
    numbers: StorePath = Field(description="Folder of the table of numbers.")
    output: StorePath = Field(description="Array to make.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"

    def inputs(self) -> dict:
        return super().inputs() | {"numbers": TableOutput("", self.numbers).stored_fingerprint()}

    @classmethod
    def locations(cls) -> set[str]:
        return {*super().locations(), "numbers"}

    def output_specs(self) -> list[VolumeOutput]:
        return [
            VolumeOutput(
                "objects", self.output, "uint64", self.chunk_shape, format=self.format,
                shard_shape=block_shards(self.format, self.block_shape), compression=0.1,
                attributes={"labels": True},
            )
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        labels, output = Volume.open(self.labels), Volume.open(self.output, mode="r+")
        tables = BlockTables(self.numbers)

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                values = labels.read(block.write_box)
                numbers = _numbers_in_block(tables, block)
            with report.measure("compute"):
                found = relabelled(values, [numbers], self.numbers)
            with report.measure("write"):
                report.write("objects", output, block.write_box, found)

        yield process


def _numbers_in_block(tables: BlockTables, block: Block) -> Columns:
    """Return the rows of one block, ascending by the label before."""
    z, y, x = block.index
    found = tables.read(f"{z}/{y}/0")
    rows = np.flatnonzero(found["block"] == x)
    rows = rows[np.argsort(found["fragment"][rows])]
    return {name: found[name][rows] for name in ("fragment", "segment")}
