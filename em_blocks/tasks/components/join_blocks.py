"""The base of tasks that join what the blocks of a volume found to be connected."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from em_blocks.config import Shape3, StorePath, VolumeRef
from em_blocks.errors import VolumeError
from em_blocks.geometry import Block, Frame, Triple
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.components.find_parts import identity_of
from em_blocks.tasks.reduce import Reduce, joined, read_tables
from em_blocks.volumes import Volume
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns, checksum_of_columns


class Decided(NamedTuple):
    """What becomes of the parts of blocks.

    Attributes
    ----------
    ids : (m,) int64 array
        The id that every part gets.
    changed : (m,) bool array
        The parts whose id is not what it was.
    counts : dict
        What to count in the run.
    tables : dict of name to columns
        Further outputs of the task.
    """

    ids: np.ndarray
    changed: np.ndarray
    counts: dict[str, int]
    tables: dict[str, Columns] = {}


class JoinBlocks(Reduce):
    """A task in one piece: what becomes of each part of a volume, whose blocks `FindParts` looked at.

    Writes one table for every row of blocks (those that differ in x only, named like the first of
    them): block (its index in x), voxel (the first of a part in this block) and id, for the parts
    whose id changes. Memory: some 150 bytes for every part in a block, none for voxels.
    """

    reads: ClassVar[tuple[str, ...]] = ("labels",)

    columns: ClassVar[tuple[str, ...]] = ("id", "size", "voxel")
    """Of the table of parts."""

    labels: VolumeRef = Field(description="Volume of ids.")
    tables: StorePath = Field(description="Folder of the tables that `find_parts` wrote.")
    output: StorePath = Field(description="Folder of the table of changes.")
    block_shape: Shape3 = Field(description="Voxels (z, y, x) of the blocks whose parts are joined.")

    def extent(self) -> tuple[Frame, Triple]:
        return self._labels.frame, self._labels.shape

    def shape_of_parts(self) -> Triple:
        return self.block_shape

    def sources(self) -> dict[str, str]:
        return super().sources() | {"tables of parts": store.join(self.tables, "parts")}

    def inputs(self) -> dict:
        # None before the tables are made, when nothing can be compared yet.
        tables = TableOutput("parts", store.join(self.tables, "parts"))
        return {"labels": identity_of(self._labels), "parts": tables.stored_fingerprint()}

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput("changes", self.output)]

    def grown_inputs(self) -> set[str]:
        return {"tables"}  # a folder for all tables of a clean-up, those of changes too

    def outputs_root(self) -> str:
        return self.output

    @classmethod
    def locations(cls) -> set[str]:
        return {"output", "tables"}

    @abstractmethod
    def decide(self, parts: Columns, edges: np.ndarray) -> Decided:
        """Return the id that every part of a block gets.

        Parameters
        ----------
        parts : columns of m rows
            The parts of all blocks.
        edges : (k, 2) int array
            Rows of two parts that touch across a border.
        """

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                parts, first_row = self._parts()
                edges = self._edges(first_row)
            with report.measure("compute"):
                found = self.decide(parts, edges)
            with report.measure("write"):
                self._write(block, report, parts["voxel"], found.ids, found.changed, first_row)
                for name, columns in found.tables.items():
                    (path,) = (spec.path for spec in self.output_specs() if spec.name == name)
                    report.write_table(name, BlockTables(path), block, columns)
            report.counts.update(found.counts)

        yield process

    def _parts(self) -> tuple[Columns, np.ndarray]:
        """The parts of all blocks, and the row at which those of each block begin."""
        found = self._read("parts")
        first_row = np.cumsum([0, *(len(table["id"]) for table in found)])
        return joined(found, self.columns), first_row

    def _edges(self, first_row: np.ndarray) -> np.ndarray:
        """Rows of two parts that touch across a border."""
        faces, links = (
            [(table["part"] - 1 + row, table["voxel"])
             for table, row in zip(self._read(name), first_row, strict=False)]
            for name in ("faces", "links")
        )
        (face_rows, face_voxels), (rows, voxels) = (
            [np.concatenate(column) for column in zip(*side, strict=True)] for side in (faces, links)
        )
        if not np.isin(voxels, face_voxels).all():
            raise VolumeError(
                f"The tables in {self.tables} do not fit together: a block saw voxels of its neighbour "
                "that the neighbour does not have. The labels were changed while their parts were "
                "found; run the clean-up again with --overwrite."
            )
        order = np.argsort(face_voxels, kind="stable")
        places = np.searchsorted(face_voxels, voxels, sorter=order)
        return np.stack([rows, face_rows[order[places]]], axis=1)

    def _write(self, block: Block, report: BlockReport, voxels, ids, changed, first_row) -> None:
        """Store what changes, row of blocks by row of blocks."""
        tables, (_, _, n_x) = BlockTables(self.output), self.parts_grid.shape
        for first in range(0, self.parts_grid.n_blocks, n_x):
            rows = np.arange(first_row[first], first_row[first + n_x])
            rows = rows[changed[rows]]
            columns = {
                "block": np.searchsorted(first_row[first : first + n_x], rows, side="right") - 1,
                "voxel": voxels[rows], "id": ids[rows],
            }
            if first == 0:  # has the name of the one block of this task, which the database checks
                report.write_table("changes", tables, block, columns)
            else:
                tables.write(self._keys[first], columns)
        # Of all tables: the readers of any of them are due again when it has changed.
        report.checksums["changes of all rows"] = checksum_of_columns(
            {"voxel": voxels[changed], "id": ids[changed]}
        )

    def _read(self, name: str) -> list[Columns]:
        """Return a table of all blocks, in the order of the blocks."""
        return read_tables(store.join(self.tables, name), self._keys)

    @cached_property
    def _keys(self) -> list[str]:
        return [block.key for block in self.parts_grid.blocks()]

    @cached_property
    def _labels(self) -> Volume:
        return Volume.open(self.labels)
