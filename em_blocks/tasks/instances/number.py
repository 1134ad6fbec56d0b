"""Number the instances of a volume, without those that are too small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt

from em_blocks.config import Shape3, StorePath
from em_blocks.geometry import Block, BlockGrid, Frame, Triple
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.components.join_blocks import write_rows_of_blocks
from em_blocks.tasks.objects.made import OfEarlierStep
from em_blocks.tasks.reduce import Reduce, joined, read_tables
from em_blocks.volumes.stores.tables import BlockTables


class NumberInstances(OfEarlierStep, Reduce):
    """A task in one piece: the final label of every object, 1, 2, ... in the order of first voxels.

    Writes one table for each row of blocks, as `write_rows_of_blocks` says: fragment (the label before)
    and segment (the number; 0 of objects that are too small); and a table of all objects: id, class.
    Memory: some 100 bytes for every object in a block.
    """

    written: ClassVar[frozenset[str]] = frozenset({"output", "classes"})
    reads: ClassVar[tuple[str, ...]] = ("labels",)

    kind: Literal["number_instances"]
    tables: StorePath = Field(description="Folder of the table of objects of every block.")
    output: StorePath = Field(description="Folder of the table of numbers.")
    classes: StorePath = Field(description="Folder of the table of ids and classes.")
    part_shape: Shape3 = Field(description="Voxels (z, y, x) of the blocks whose objects are numbered.")
    min_size: PositiveInt = Field(description="Voxels that an object has at least.")

    def grid(self) -> BlockGrid:
        return Reduce.grid(self)

    def extent(self) -> tuple[Frame, Triple]:
        return self.place

    def shape_of_parts(self) -> Triple:
        return self.part_shape

    def sources(self) -> dict[str, str]:
        return super().sources() | {"tables": self.tables}

    def inputs(self) -> dict:
        return super().inputs() | {"sizes": TableOutput("", self.tables).stored_fingerprint()}

    @classmethod
    def locations(cls) -> set[str]:
        return {*super().locations(), "tables", "classes"}

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput("numbers", self.output), TableOutput("classes", self.classes)]

    def outputs_root(self) -> str:
        return self.output

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                found = read_tables(self.tables, self._keys)
                first_row = np.cumsum([0, *(len(table["id"]) for table in found)])
                rows = joined(found, ("id", "voxels", "voxel"))
            with report.measure("compute"):
                numbers = number_objects(**rows, min_size=self.min_size)
                n = int(numbers.max(initial=0))
            with report.measure("write"):
                write_rows_of_blocks(
                    "numbers", self.output, {"fragment": rows["id"], "segment": numbers},
                    np.ones(len(numbers), bool), first_row, block=block, report=report,
                    grid=self.parts_grid,
                )
                classes = {"id": np.arange(1, n + 1), "class": np.ones(n, np.int64)}
                report.write_table("classes", BlockTables(self.classes), block, classes)
            report.counts |= {
                "objects": n, "small_objects": len(np.unique(rows["id"][numbers == 0])),
            }

        yield process

    @cached_property
    def _keys(self) -> list[str]:
        return [block.key for block in self.parts_grid.blocks()]


def number_objects(
    id: np.ndarray, voxels: np.ndarray, voxel: np.ndarray, *, min_size: int
) -> np.ndarray:
    """Return the number of the object of each row; 0 if it is too small.

    Parameters
    ----------
    id, voxels, voxel : (m,) int64 arrays
        Of the objects in all blocks: label, voxels in the block, and index of the first one in the flat
        volume.
    """
    ids, member = np.unique(id, return_inverse=True)
    sizes, first = np.zeros(len(ids), np.int64), np.full(len(ids), np.iinfo(np.int64).max)
    np.add.at(sizes, member, voxels)
    np.minimum.at(first, member, voxel)
    kept = np.flatnonzero(sizes >= min_size)
    kept = kept[np.argsort(first[kept])]
    numbers = np.zeros(len(ids), np.int64)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return numbers[member]
