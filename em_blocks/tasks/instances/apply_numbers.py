"""Write the instances of every block with their final labels, holes filled, and measure them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from em_blocks.config import Shape3, StorePath
from em_blocks.errors import VolumeError
from em_blocks.geometry import Block
from em_blocks.kernels.components.object_measures import measure_objects
from em_blocks.kernels.components.runs import find_runs, paint_runs, replaced
from em_blocks.outputs import RunContext, TableOutput, VolumeOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.components.apply_parts import changes_in_block
from em_blocks.tasks.objects.made import OfEarlierStep
from em_blocks.tasks.objects.steps import fill_gaps
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format, block_shards
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns


class ApplyNumbers(OfEarlierStep):
    """Write the labels of every block as `NumberInstances` numbers them, and fill holes.

    A table per block measures the objects in it, as `MeasureObjects` does.
    """

    written: ClassVar[frozenset[str]] = frozenset({"output", "measures"})
    reads: ClassVar[tuple[str, ...]] = ("labels", "numbers", "holes")

    kind: Literal["apply_numbers"]
    numbers: StorePath = Field(description="Folder of the table of numbers.")
    holes: StorePath | None = Field(description="Folder of the table of holes to fill.")
    output: StorePath = Field(description="Array to make.")
    measures: StorePath = Field(description="Folder of the table of objects in blocks.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"

    def inputs(self) -> dict:
        holes = self.holes and TableOutput("", self.holes).stored_fingerprint()
        numbers = TableOutput("", self.numbers).stored_fingerprint()
        return super().inputs() | {"numbers": numbers, "holes": holes}

    @classmethod
    def locations(cls) -> set[str]:
        return {*super().locations(), "numbers", "holes", "measures"}

    def output_specs(self) -> list[VolumeOutput | TableOutput]:
        return [
            VolumeOutput(
                "objects", self.output, "uint64", self.chunk_shape, format=self.format,
                shard_shape=block_shards(self.format, self.block_shape), compression=0.1,
                attributes={"labels": True},
            ),
            TableOutput("measures", self.measures),
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        labels, output = Volume.open(self.labels), Volume.open(self.output, mode="r+")
        numbers, measures = BlockTables(self.numbers), BlockTables(self.measures)
        holes = self.holes and BlockTables(self.holes)

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                values = labels.read(block.write_box)
                chosen = _numbers_in_block(numbers, block)
                changes = holes and changes_in_block(holes, block)
            with report.measure("compute"):
                found = self._numbered(values, chosen)
                if changes:
                    found = fill_gaps(found, changes, block, labels.shape)
                measured = measure_objects(found, block.write_box.offset)
            with report.measure("write"):
                report.write("objects", output, block.write_box, found)
                report.write_table("measures", measures, block, measured._asdict())
            report.counts["parts"] = len(measured.id)

        yield process

    def _numbered(self, values: np.ndarray, numbers: Columns) -> np.ndarray:
        runs = find_runs(values)
        new, missing = replaced(runs.ids, numbers["label"], numbers["number"])
        if missing[0]:
            raise VolumeError(
                f"{self.labels} holds the label {missing[0]}, which the table {self.numbers} does not: "
                "the labels have changed since they were numbered. Run the job again with --overwrite."
            )
        found = np.zeros(values.shape, np.uint64)  # memory that nothing is painted into costs nothing
        kept = new != 0
        paint_runs(found.ravel(), runs.first[kept], runs.lengths[kept], new[kept])
        return found


def _numbers_in_block(tables: BlockTables, block: Block) -> Columns:
    """Return the rows of one block, ascending by the label before."""
    z, y, x = block.index
    found = tables.read(f"{z}/{y}/0")
    rows = np.flatnonzero(found["block"] == x)
    rows = rows[np.argsort(found["label"][rows])]
    return {name: found[name][rows] for name in ("label", "number")}
