"""Number the instances of a volume, without those that are too small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import fastremap
import numpy as np
from pydantic import Field, PositiveInt

from em_blocks.config import StorePath
from em_blocks.geometry import Block
from em_blocks.kernels.instances.numbers import Sizes, numbers_of
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.components.join_blocks import write_rows_of_blocks
from em_blocks.tasks.instances.merge import merges
from em_blocks.tasks.objects.made import ReducesEarlierStep
from em_blocks.tasks.reduce import joined, read_tables
from em_blocks.volumes.stores.tables import BlockTables, Columns


class NumberInstances(ReducesEarlierStep):
    """A task in one piece: the final label of every object, 1, 2, ... in the order of first voxels.

    An object is a label, with all that `MergeFragments` merged with it.

    Writes one table for each row of blocks, as `write_rows_of_blocks` says: label (before) and number
    (from now on; 0 of objects that are too small); the same for all objects, by ascending label; those
    that are erased; and a table of ids and classes. Memory: some 100 bytes for every object in a block.
    """

    written: ClassVar[frozenset[str]] = frozenset({"output", "classes", "erased", "all_numbers"})
    reads: ClassVar[tuple[str, ...]] = ("labels",)

    kind: Literal["number_instances"]
    tables: StorePath = Field(description="Folder of the table of objects of every block.")
    merged: StorePath | None = Field(None, description="Folder of the table of merged labels.")
    all_numbers: StorePath = Field(description="Folder of the table of numbers of all objects.")
    erased: StorePath = Field(description="Folder of the table of objects that are too small.")
    classes: StorePath = Field(description="Folder of the table of ids and classes.")
    min_size: PositiveInt = Field(description="Voxels that an object has at least.")

    def sources(self) -> dict[str, str]:
        return super().sources() | {"tables": self.tables} | (
            {} if self.merged is None else {"merged": self.merged}
        )

    def inputs(self) -> dict:
        merged = self.merged and TableOutput("", self.merged).stored_fingerprint()
        sizes = TableOutput("", self.tables).stored_fingerprint()
        return super().inputs() | {"sizes": sizes} | ({} if merged is None else {"merged": merged})

    @classmethod
    def locations(cls) -> set[str]:
        return {*super().locations(), "tables", "merged", "classes", "all_numbers", "erased"}

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput("numbers", self.output)] + [
            TableOutput(name, getattr(self, name)) for name in ("all_numbers", "erased", "classes")
        ]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                found = read_tables(self.tables, self.keys_of_parts)
                first_row = np.cumsum([0, *(len(table["ids"]) for table in found)])
                rows = joined(found, Sizes._fields)
            with report.measure("compute"):
                objects = rows | {"ids": self._objects(rows["ids"])}
                numbers = numbers_of(**objects, min_size=self.min_size)
                further = _whole_tables(rows["ids"], numbers)
            with report.measure("write"):
                write_rows_of_blocks(
                    "numbers", self.output, {"label": rows["ids"], "number": numbers},
                    np.ones(len(numbers), bool), first_row, block=block, report=report,
                    grid=self.parts_grid,
                )
                for name, columns in further.items():
                    report.write_table(name, BlockTables(getattr(self, name)), block, columns)
            report.counts |= {
                "objects": len(further["classes"]["id"]),
                "small_objects": len(further["erased"]["label"]),
            }

        yield process

    def _objects(self, labels: np.ndarray) -> np.ndarray:
        if self.merged is None:
            return labels
        return fastremap.remap(labels, merges(self.merged), preserve_missing_labels=True)


def _whole_tables(labels: np.ndarray, numbers: np.ndarray) -> dict[str, Columns]:
    """Return the tables of all objects, from labels and numbers of those in blocks."""
    every, rows = np.unique(labels, return_index=True)
    n = int(numbers.max(initial=0))
    return {
        "all_numbers": {"label": every, "number": numbers[rows]},
        "erased": {"label": every[numbers[rows] == 0]},
        "classes": {"id": np.arange(1, n + 1), "class": np.ones(n, np.int64)},
    }
