"""From classes to objects: connected components, and the gaps in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt

from em_blocks.config import StorePath
from em_blocks.geometry import Block, Box, Frame, Triple, triple
from em_blocks.kernels.components.block_components import find_parts
from em_blocks.kernels.components.gaps import Touched, joined_touches, touched_by
from em_blocks.kernels.components.join_components import JoinedParts, join_parts
from em_blocks.kernels.components.runs import connect_runs, find_runs, paint_runs
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.components.apply_parts import ApplyParts, changed_ids, changes_in_block
from em_blocks.tasks.components.find_parts import FindParts, tables_of_parts
from em_blocks.tasks.components.join_blocks import Decided, JoinBlocks
from em_blocks.tasks.objects.made import OfEarlierStep
from em_blocks.volumes import Volume
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns

_FACES = 6
"""Neighbours of a voxel of background: where objects are connected by corners, gaps are not."""


class FindObjects(OfEarlierStep, FindParts):
    """As `FindParts`, of the classes that an earlier step marks."""

    kind: Literal["find_objects"]


class _Join(OfEarlierStep, JoinBlocks):
    """As `JoinBlocks`, of a volume that an earlier step makes."""

    def extent(self) -> tuple[Frame, Triple]:
        return self.place

    def grid(self):
        return JoinBlocks.grid(self)

    def inputs(self) -> dict:
        tables = TableOutput("parts", store.join(self.tables, "parts"))
        return super().inputs() | {"parts": tables.stored_fingerprint()}


class JoinObjects(_Join):
    """One object for every connected component of a class that is large enough.

    Ids are 1, 2, ... in the order of first voxels (z slowest), whatever the blocks are. A further
    table lists them: id, class.
    """

    written: ClassVar[frozenset[str]] = frozenset({"output", "classes"})

    kind: Literal["join_objects"]
    classes: StorePath = Field(description="Folder of the table of ids and classes.")
    min_size: PositiveInt = Field(description="Voxels that an object has at least.")

    def output_specs(self) -> list[TableOutput]:
        return [*super().output_specs(), TableOutput("classes", self.classes)]

    @classmethod
    def locations(cls) -> set[str]:
        return {*super().locations(), "classes"}

    def decide(self, parts: Columns, edges: np.ndarray) -> Decided:
        found = join_parts(parts["id"], parts["size"], parts["voxel"], edges)
        kept = np.flatnonzero(found.sizes >= self.min_size)
        kept = kept[np.argsort(found.first[kept])]
        ids = np.zeros(len(found.ids), np.int64)
        ids[kept] = np.arange(1, len(kept) + 1)
        given = ids[found.member]
        return Decided(
            given, given != parts["id"], _counts(found, ids),
            {"classes": {"id": ids[kept], "class": found.ids[kept]}},
        )


def _counts(found: JoinedParts, ids: np.ndarray) -> dict[str, int]:
    return {
        "components": len(ids), "erased": int((ids == 0).sum()),
        "erased_voxels": int(found.sizes[ids == 0].sum()),
    }


class ApplyObjects(OfEarlierStep, ApplyParts):
    """As `ApplyParts`, of the classes that an earlier step marks."""

    name: ClassVar[str] = "objects"

    kind: Literal["apply_objects"]

    def inputs(self) -> dict:
        return super().inputs() | {"changes": TableOutput("", self.changes).stored_fingerprint()}


class FindGaps(OfEarlierStep, FindParts):
    """The connected parts of the background of every block, and what they touch.

    Neighbours are those by faces: what objects, connected by corners too, enclose is not connected
    to what lies outside of them. The table of parts has further columns: outside, low and high, see
    `em_blocks.kernels.components.gaps`.
    """

    kind: Literal["find_gaps"]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        tables = {spec.name: BlockTables(spec.path) for spec in self.output_specs()}

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                grown = self.ids_in(block.write_box.grow((1, 1, 1)))
            with report.measure("compute"):
                found = gap_tables(grown, block, self.place[1])
            with report.measure("write"):
                for name, columns in found.items():
                    report.write_table(name, tables[name], block, columns)
            report.counts["gaps"] = len(found["parts"]["id"])

        yield process


def gap_tables(grown: np.ndarray, block: Block, shape: Triple) -> dict[str, Columns]:
    """Return the tables of one block.

    Parameters
    ----------
    grown : (z + 2, y + 2, x + 2) integer array
        Ids of the block and one voxel around it; 0 beyond the volume.
    shape : (3,) int
        Voxels of the volume.
    """
    box = block.write_box
    around = box.grow((1, 1, 1))
    inside = np.zeros(grown.shape, bool)
    inside[around.intersect(Box((0, 0, 0), shape)).relative_to(around).slices] = True
    gaps = ((grown == 0) & inside).view(np.uint8)
    parts = find_parts(gaps[1:-1, 1:-1, 1:-1], _FACES)
    found = tables_of_parts(gaps, parts, box, shape, _FACES)
    touched = touched_by(parts.numbers, grown, n_parts=len(parts.ids), box=box, shape=shape)
    found["parts"] |= {**touched._asdict(), "outside": touched.outside.astype(np.uint8)}
    return found


class JoinGaps(_Join):
    """Which gaps are holes, and of which object.

    A hole touches no border of the volume, and one object only.
    """

    columns: ClassVar[tuple[str, ...]] = (*JoinBlocks.columns, "outside", "low", "high")

    kind: Literal["join_gaps"]
    max_hole: PositiveInt | None = Field(description="Voxels that a hole has at most.")

    def decide(self, parts: Columns, edges: np.ndarray) -> Decided:
        found = join_parts(parts["id"], parts["size"], parts["voxel"], edges)
        touched = joined_touches(
            Touched(parts["outside"] > 0, parts["low"], parts["high"]), found.member, len(found.ids)
        )
        is_hole = ~touched.outside & (touched.low == touched.high)
        if self.max_hole is not None:
            is_hole &= found.sizes <= self.max_hole
        return Decided(
            touched.low[found.member], is_hole[found.member],
            {"holes": int(is_hole.sum()), "filled_voxels": int(found.sizes[is_hole].sum())},
        )


class FillGaps(OfEarlierStep, ApplyParts):
    """The objects with their holes filled, as `JoinGaps` decided."""

    name: ClassVar[str] = "objects"

    kind: Literal["fill_gaps"]

    def inputs(self) -> dict:
        return super().inputs() | {"changes": TableOutput("", self.changes).stored_fingerprint()}

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        labels, output = Volume.open(self.labels), Volume.open(self.output, mode="r+")
        tables = BlockTables(self.changes)

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                values = labels.read(block.write_box)
                changes = changes_in_block(tables, block)
            with report.measure("compute"):
                filled = fill_gaps(values, changes, block, labels.shape)
            with report.measure("write"):
                report.write(self.name, output, block.write_box, filled)

        yield process


def fill_gaps(
    values: np.ndarray, changes: Columns, block: Block, shape: Triple
) -> np.ndarray:
    """Return the ids (z, y, x) of a block with its holes filled."""
    if not len(changes["voxel"]):
        return values
    runs = find_runs((values == 0).view(np.uint8))
    gaps = connect_runs(runs, triple(values.shape), by_corners=False)
    ids = np.zeros(len(gaps.first) + 1, values.dtype)
    changed_ids(ids, gaps.first, changes, block.write_box, shape)
    new, found = ids[gaps.numbers], values.copy()
    filled = new != 0
    paint_runs(found.ravel(), runs.first[filled], runs.lengths[filled], new[filled])
    return found
