"""The base of tasks that join what the blocks of a volume found to be connected."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from em_blocks.config import Shape3, StorePath, VolumeRef
from em_blocks.errors import VolumeError
from em_blocks.geometry import Block, BlockGrid, Frame, Triple
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
        return read_parts(self.tables, self._keys, self.columns)

    def _edges(self, first_row: np.ndarray) -> np.ndarray:
        return read_edges(self.tables, self._keys, first_row)

    def _write(self, block: Block, report: BlockReport, voxels, ids, changed, first_row) -> None:
        write_rows_of_blocks(
            "changes", self.output, {"voxel": voxels, "id": ids}, changed, first_row, block=block,
            report=report, grid=self.parts_grid,
        )

    @cached_property
    def _keys(self) -> list[str]:
        return [block.key for block in self.parts_grid.blocks()]

    @cached_property
    def _labels(self) -> Volume:
        return Volume.open(self.labels)


def read_parts(
    folder: str, keys: Sequence[str], columns: Iterable[str]
) -> tuple[Columns, np.ndarray]:
    """Return the parts of all blocks, and the row at which those of each block begin.

    Parameters
    ----------
    folder : str
        Where `FindParts` wrote its tables.
    keys : list of str
        Of the blocks.
    """
    found = read_tables(store.join(folder, "parts"), keys)
    first_row = np.cumsum([0, *(len(table["id"]) for table in found)])
    return joined(found, columns), first_row


def read_edges(folder: str, keys: Sequence[str], first_row: np.ndarray) -> np.ndarray:
    """Return rows of two parts that touch across a border of blocks: (k, 2) int array.

    Parameters
    ----------
    folder, keys, first_row
        As `read_parts` takes and returns them.

    Raises
    ------
    VolumeError
        If blocks contradict each other.
    """
    faces, links = (
        [(table["part"] - 1 + row, table["voxel"])
         for table, row in zip(read_tables(store.join(folder, name), keys), first_row, strict=False)]
        for name in ("faces", "links")
    )
    (face_rows, face_voxels), (rows, voxels) = (
        [np.concatenate(column) for column in zip(*side, strict=True)] for side in (faces, links)
    )
    if not np.isin(voxels, face_voxels).all():
        raise VolumeError(
            f"The tables in {folder} do not fit together: a block saw voxels of its neighbour that the "
            "neighbour does not have. The labels were changed while their parts were found; run the "
            "job again with --overwrite."
        )
    order = np.argsort(face_voxels, kind="stable")
    places = np.searchsorted(face_voxels, voxels, sorter=order)
    return np.stack([rows, face_rows[order[places]]], axis=1)


def write_rows_of_blocks(
    name: str, folder: str, columns: Columns, chosen: np.ndarray, first_row: np.ndarray, *,
    block: Block, report: BlockReport, grid: BlockGrid,
) -> None:
    """Store chosen rows of a table of all blocks: one table for every row of blocks.

    Each is named like the first block of its row, and says by its column ``block`` (the index in x)
    of which block a row is.

    Parameters
    ----------
    name, folder : str
        Of the output.
    columns : columns of m rows
    chosen : (m,) bool array
    first_row : (n + 1,) int array
        Where the rows of each block of `grid` begin.
    block : Block
        The one block of the task.
    """
    tables, (_, _, n_x) = BlockTables(folder), grid.shape
    keys = [each.key for each in grid.blocks()]
    for first in range(0, grid.n_blocks, n_x):
        rows = np.arange(first_row[first], first_row[first + n_x])
        rows = rows[chosen[rows]]
        table = {
            "block": np.searchsorted(first_row[first : first + n_x], rows, side="right") - 1,
            **{column: values[rows] for column, values in columns.items()},
        }
        if first == 0:  # has the name of the one block of this task, which the database checks
            report.write_table(name, tables, block, table)
        else:
            tables.write(keys[first], table)
    # Of all tables: the readers of any of them are due again when it has changed.
    report.checksums[f"{name} of all rows"] = checksum_of_columns(
        {column: values[chosen] for column, values in columns.items()}
    )
