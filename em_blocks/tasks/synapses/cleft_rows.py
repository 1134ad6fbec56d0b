"""The cleft between the sites of stored synapses, and where the partners of a cleft meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, PositiveInt

from em_blocks.config import Shape3, StorePath, VolumeRef
from em_blocks.db.rows import RowStore
from em_blocks.db.schemas.clefts import CHECKED, CLEFTS, checksum_of_clefts
from em_blocks.db.schemas.synapses import CLEFT, SYNAPSES
from em_blocks.geometry import Block, BlockGrid, Box, Frame, Triple
from em_blocks.kernels.synapses.clefts import clefts_on_lines, connectors
from em_blocks.kernels.synapses.table import BACKGROUND, UNMAPPED, Synapses
from em_blocks.outputs import Checksum, Output, RunContext, TableOutput
from em_blocks.outputs.table import table_fingerprint
from em_blocks.outputs.volume import fingerprint_of
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock, RunName
from em_blocks.tasks.reduce import Reduce, joined, read_tables
from em_blocks.tasks.synapses.label_lookup import inside
from em_blocks.tasks.synapses.map_sites import (
    MappedSites,
    check_database,
    check_unmapped,
    sites_in,
)
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.tables import BlockTables, Columns

_COLUMNS = ["cleft", "cleft_score"]


class CleftTask(BlockwiseTask):
    """A task over the voxels of predicted clefts that writes about stored synapses."""

    reads: ClassVar[tuple[str, ...]] = ("prediction",)

    prediction: VolumeRef = Field(description="Volume of predicted clefts.")
    clefts: StorePath = Field(description="Volume of the ids of clefts.")
    synapses: RunName = Field(description="The run that detected the synapses.")
    sums: StorePath = Field(description="Folder of the tables of voxels and places of clefts.")

    @classmethod
    def locations(cls) -> set[str]:
        return {"clefts", "sums"}

    def synapse_runs(self) -> list[str]:
        return [self.synapses]

    def outputs_root(self) -> str:
        return str(self.home)

    def check_rows(self, context: RunContext) -> None:
        check_unmapped(context, self.synapses, self.kind)

    def rows_spec(self, name: str) -> dict:
        """Return the values of a `MappedSites` of the fields of rows that say which cleft they face."""
        return {
            "name": name, "path": f"{self.db_name}.synapses", "run": self.synapses,
            "columns": _COLUMNS, "indexes": [CLEFT], "marks": {"post": "cleft"}, "forgets": _COLUMNS,
        }

    @cached_property
    def _prediction(self) -> Volume:
        return Volume.open(self.prediction)


class MarkClefts(CleftTask):
    """Write the fields ``cleft`` and ``cleft_score`` of rows, and sum up the voxels of clefts.

    A row belongs to the block that holds its postsynaptic site. Both fields are null for a row whose
    line cannot be followed: it is too long, or leaves the volume.
    """

    written: ClassVar[frozenset[str]] = frozenset({"sums"})

    kind: Literal["mark_clefts"]
    max_distance_nm: Annotated[float, Field(gt=0)]

    def grid(self) -> BlockGrid:
        return BlockGrid(self._prediction.frame, self._prediction.shape, self.block_shape)

    def sources(self) -> dict[str, str]:
        return super().sources() | {"clefts": self.clefts}

    def inputs(self) -> dict:
        return {"clefts": fingerprint_of(self.clefts)}

    def output_specs(self) -> list[Output]:
        return [MappedSites(**self.rows_spec("rows")), TableOutput("sums", self.sums)]

    def read_context(self) -> Triple:
        sizes = self._prediction.frame.voxel_size
        return tuple(int(np.ceil(self.max_distance_nm / v)) + 1 for v in sizes)

    def check(self) -> None:
        check_database(self)

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        rows, tables = context.rows(SYNAPSES, self.synapses), BlockTables(self.sums)
        clefts, grid = Volume.open(self.clefts), self.grid()
        marks = MappedSites(**self.rows_spec("rows"))

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                table = sites_in(rows, grid.frame, block.write_box, "post").rows
                sums = sums_of(clefts.read(block.write_box), block.write_box)
                marked = self._marked(table, clefts)
            with report.measure("write"):
                rows.update(marked, _COLUMNS, nulls=True)
                report.write_table("sums", tables, block, sums)
            report.checksums[marks.name] = marks.checksum_of({"post": marked})
            report.counts.update(
                rows=len(marked), on_clefts=int((marked.cleft > BACKGROUND).sum()),
                not_followed=int((marked.cleft == UNMAPPED).sum()),
            )

        yield process

    def _marked(self, table: Synapses, clefts: Volume) -> Synapses:
        """Return rows with the cleft on their line and the largest value there."""
        frame, whole = clefts.frame, Box((0, 0, 0), clefts.shape)
        (pre, covered), (post, _) = (
            inside(frame, whole, positions) for positions in (table.pre, table.post)
        )
        followed = np.flatnonzero(covered & (table.distance <= self.max_distance_nm))
        ids, scores = np.full(len(table), UNMAPPED), np.full(len(table), np.nan)
        if len(followed):
            ends = [np.floor(end[followed]).astype(np.int64) for end in (pre, post)]
            both = np.concatenate(ends)
            box = Box.between(both.min(axis=0), both.max(axis=0) + 1)
            values = self._prediction.read(box).reshape(box.shape)
            found = clefts_on_lines(clefts.read(box), values, *ends, corner=box.offset)
            ids[followed] = found.cleft
            scores[followed] = found.score / (self._prediction.scale or 1.0)
        return table.replace(cleft=ids, cleft_score=scores)


def sums_of(ids: np.ndarray, box: Box) -> dict[str, np.ndarray]:
    """Return voxels of every cleft in a box, and the sums of their places in the volume.

    Parameters
    ----------
    ids : (z, y, x) uint64 array

    Returns
    -------
    columns
        ``cleft``, ``voxels``, ``place`` (n, 3); all int64.
    """
    places = np.argwhere(ids) + box.offset
    found, member = np.unique(ids[ids > 0].astype(np.int64), return_inverse=True)
    sums = np.zeros((len(found), 3), np.int64)
    np.add.at(sums, member, places)
    return {"cleft": found, "voxels": np.bincount(member, minlength=len(found)), "place": sums}


class Clefts(NamedTuple):
    """All clefts of a volume."""

    ids: np.ndarray  # (n,) int64, ascending
    voxels: np.ndarray  # (n,) int64
    centroids: np.ndarray  # (n, 3) float64, voxels of the volume: centres of mass


class ConnectClefts(Reduce, CleftTask):
    """Write one document per cleft that partners face: its size, its centre, and its connectors.

    One block for the whole volume; the rows come from the database cleft by cleft. Memory: some 100
    bytes for every cleft.
    """

    kind: Literal["connect_clefts"]
    part_shape: Shape3 = Field(description="Voxels (z, y, x) of the blocks of `mark_clefts`.")
    split_above: PositiveInt | None = None

    def extent(self) -> tuple[Frame, Triple]:
        return self._prediction.frame, self._prediction.shape

    def shape_of_parts(self) -> Triple:
        return self.part_shape

    def sources(self) -> dict[str, str]:
        return super().sources() | {"tables of clefts": self.sums}

    def inputs(self) -> dict:
        return {"sums": table_fingerprint(self.sums)}

    def output_specs(self) -> list[StoredClefts]:
        return [StoredClefts(**self.rows_spec("connectors"), clefts_of=self.run)]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        rows, stored = context.rows(SYNAPSES, self.synapses), context.documents(CLEFTS)
        (spec,) = self.output_specs()

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                clefts = clefts_of(read_tables(self.sums, self.parts(block)))
            with report.measure("write"):
                n = stored.replace_all(self._documents(rows, clefts))
            report.checksums[spec.name] = checksum_of_clefts(stored.read(CHECKED))
            report.counts.update(clefts=len(clefts.ids), with_partners=n)

        yield process

    def _documents(self, rows: RowStore[Synapses], clefts: Clefts) -> Iterator[dict]:
        frame = self._prediction.frame
        for cleft, table in rows.groups("cleft"):
            place = np.searchsorted(clefts.ids, cleft)
            size = int(clefts.voxels[place])
            centroid = (clefts.centroids[place] + 0.5) * frame.voxel_size + frame.offset
            large = self.split_above is not None and size > self.split_above
            found = connectors(table.pre, centroid, split=large)
            yield {
                "synapses_run": self.synapses, "cleft": cleft, "voxels": size,
                "centroid": centroid.tolist(), "synapses": len(table),
                "connectors": [
                    {"position": table.pre[row].tolist(),
                     "synapses": table.id[found.member == n].tolist()}
                    for n, row in enumerate(found.rows)
                ],
            }


def clefts_of(tables: Sequence[Columns]) -> Clefts:
    """Add up what the tables of all blocks (see `sums_of`) say of every cleft."""
    rows = joined(tables, ("cleft", "voxels", "place"))
    ids, member = np.unique(rows["cleft"], return_inverse=True)
    n, sums = np.zeros(len(ids), np.int64), np.zeros((len(ids), 3), np.int64)
    np.add.at(n, member, rows["voxels"])
    np.add.at(sums, member, rows["place"])
    return Clefts(ids, n, sums / n[:, None])


@dataclass(frozen=True)
class StoredClefts(MappedSites):
    """Documents of the collection ``clefts``, outdated once their rows are stored again.

    Parameters
    ----------
    clefts_of : str
        The run that writes them.
    """

    clefts_of: str = ""

    def prepare(self, context: RunContext) -> None:
        super().prepare(context)
        context.documents(CLEFTS).prepare()

    def remove(self, context: RunContext) -> None:
        context.documents(CLEFTS, self.clefts_of).remove()

    def stored_checksum(self, context: RunContext, grid: BlockGrid) -> Checksum:
        stored = context.documents(CLEFTS, self.clefts_of)
        return lambda block: checksum_of_clefts(stored.read(CHECKED))

    def differs(self, block: Block) -> str:
        return f"the clefts of run {self.clefts_of} are not those that were written"
