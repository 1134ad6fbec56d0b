"""Supervoxels and segments at the sites of stored synapses, block by block."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from em_blocks.db.connect import database_home
from em_blocks.db.rows import RowStore
from em_blocks.db.runs import RunStore
from em_blocks.db.schemas.synapses import MAPPING, OBJECTS, SIDES, SYNAPSES, SynapseSchema
from em_blocks.errors import ConfigError, RefusedError
from em_blocks.geometry import Block, BlockGrid, Box, Frame, Roi
from em_blocks.kernels.synapses.table import BACKGROUND, Synapses
from em_blocks.kernels.transforms.positions import ROUNDING_VOXELS
from em_blocks.outputs import Checksum, RowOutput, RunContext
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock, RunName
from em_blocks.tasks.synapses.label_lookup import LabelTask, Objects, inside, roi_around

OF_THE_TABLE = ("config.lut:", "inputs.lut:", "outputs:")
"""How differences of two mappings begin that differ in nothing but the look-up table."""


class SitesInBlock(NamedTuple):
    """The rows with one of their sites in a block."""

    rows: Synapses
    sites: np.ndarray  # (n, 3) float64, voxels of the labels


class MapSites(LabelTask):
    """Write the fields ``supervoxel`` and ``segment`` of presynaptic and postsynaptic sites.

    A site belongs to the block that holds its voxel, so the two sites of a row may be mapped by
    different blocks, each of which writes its own fields. A block without sites reads nothing.
    """

    kind: Literal["map_sites"]
    synapses: RunName = Field(description="The run that detected the synapses.")
    outside: Literal["error", "leave"] = Field(
        "error", description="What to do if the labels do not cover a site: refuse to start, or leave "
        "its fields empty."
    )

    def synapse_runs(self) -> list[str]:
        return [self.synapses]

    def output_specs(self) -> list[MappedSites]:
        return [
            MappedSites(
                "sites", f"{self.db_name}.synapses", self.synapses, tuple(self._columns("pre"))
                + tuple(self._columns("post")), indexes=MAPPING,
                marks={side: f"{side}_supervoxel" for side in SIDES},
                forgets=[f"{side}.{name}" for side in SIDES for name in OBJECTS],
            )
        ]

    def check(self) -> None:
        super().check()
        check_database(self)

    def other_ways(self, differences: list[str]) -> str:
        if self.lut is None or not all(line.startswith(OF_THE_TABLE) for line in differences):
            return ""
        return f"; --lut {self.lut} changes the segments of what is mapped to those of that table"

    def check_rows(self, context: RunContext) -> None:
        check_unmapped(context, self.synapses, self.kind)
        check_table_is_whole(context.records)
        grid = self.grid()
        if self.outside == "error":
            rows = context.rows(SYNAPSES, self.synapses)
            check_covered(rows, grid.frame, Box((0, 0, 0), grid.volume_shape), self.labels)

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        rows, frame = context.rows(SYNAPSES, self.synapses), self.grid().frame
        (spec,) = self.output_specs()
        with self.looking_up() as look_up:

            def process(block: Block, report: BlockReport) -> None:
                with report.measure("read"):
                    found = {side: sites_in(rows, frame, block.write_box, side) for side in SIDES}
                    objects = look_up(np.concatenate([found[side].sites for side in SIDES]))
                with report.measure("write"):
                    mapped = self._store(rows, found, objects)
                report.checksums[spec.name] = spec.checksum_of(mapped)
                report.counts.update(
                    sites=len(objects.supervoxel), searched=int(objects.searched.sum()),
                    mapped=int((objects.supervoxel != BACKGROUND).sum()),
                    background=int((objects.supervoxel == BACKGROUND).sum()),
                )

            yield process

    def _store(
        self, rows: RowStore[Synapses], found: dict[str, SitesInBlock], objects: Objects
    ) -> dict[str, Synapses]:
        """Write the objects of both sides; the rows as they are now."""
        mapped, begin = {}, 0
        for side, (table, sites) in found.items():
            own = slice(begin, begin := begin + len(sites))
            mapped[side] = table.replace(**{
                f"{side}_supervoxel": objects.supervoxel[own], f"{side}_segment": objects.segment[own]
            })
        self._update(rows, **mapped)
        return mapped

    def _update(self, rows: RowStore[Synapses], pre: Synapses, post: Synapses) -> None:
        """Write both sides; a row with both sites in the block, as most have, is written once."""
        in_post, in_pre = np.isin(pre.id, post.id), np.isin(post.id, pre.id)
        shared = post.select(in_pre)  # both tables are in the order of ids
        both = pre.select(in_post).replace(
            **{name: getattr(shared, name) for name in self._columns("post")}
        )
        rows.update(both, self._columns("pre") + self._columns("post"))
        rows.update(pre.select(~in_post), self._columns("pre"))
        rows.update(post.select(~in_pre), self._columns("post"))

    def _columns(self, side: str) -> list[str]:
        known = ["supervoxel", "segment"] if self.lut or self.labels_are_segments else ["supervoxel"]
        return [f"{side}_{name}" for name in known]


@dataclass(frozen=True)
class MappedSites(RowOutput):
    """Fields of sites, written by the block that holds the site and not by the one of the row.

    Parameters
    ----------
    marks : mapping of str to str
        For each side whose sites the blocks hold, the column that they write.
    told_by : mapping of str to str, optional
        Columns whose absence tells that a row was stored again since; default: `marks`.
    forgets : sequence of str
        Fields of documents that are worth nothing without those that the task writes.
    """

    schema: SynapseSchema = SYNAPSES
    marks: Mapping[str, str] = field(default_factory=dict)
    told_by: Mapping[str, str] | None = None
    forgets: Sequence[str] = ()

    def nbytes(self, n_voxels: int) -> float:
        """Return 0: the rows exist already."""
        return 0.0

    def remove(self, context: RunContext) -> None:
        context.rows(SYNAPSES, self.run).unset(self.forgets)

    def lost(self, context: RunContext, grid: BlockGrid) -> np.ndarray:
        lost, rows = np.zeros(grid.shape, bool), context.rows(SYNAPSES, self.run)
        whole = Box((0, 0, 0), grid.volume_shape)
        for side, column in (self.told_by or self.marks).items():
            for positions in rows.positions_without(side, SYNAPSES.fields[column]):
                voxels, within = inside(grid.frame, whole, positions)
                index = np.floor(voxels[within]).astype(np.int64) // grid.block_shape
                lost[tuple(index.T)] = True
        return lost

    def checksum_of(self, tables: Mapping[str, Synapses]) -> int:
        """Return the CRC-32 of ids of rows and of what marks them; segments may change afterwards."""
        crc = 0
        for side, column in self.marks.items():
            for values in (tables[side].id, getattr(tables[side], column)):
                crc = zlib.crc32(np.ascontiguousarray(values), crc)
        return crc

    def stored_checksum(self, context: RunContext, grid: BlockGrid) -> Checksum:
        rows = context.rows(SYNAPSES, self.run)

        return lambda block: self.checksum_of({
            side: sites_in(rows, grid.frame, block.write_box, side).rows for side in self.marks
        })


def sites_in(rows: RowStore[Synapses], frame: Frame, box: Box, side: str) -> SitesInBlock:
    """Return the rows whose presynaptic or postsynaptic site lies in a voxel of `box`, by their ids."""
    table = rows.read(roi=roi_around(frame, box), at=side)
    sites, within = inside(frame, box, getattr(table, side))
    return SitesInBlock(table.select(within), sites[within])


def check_database(task: BlockwiseTask) -> None:
    """Raise `ConfigError` if there is no embedded database, and so no synapses."""
    if task.db_host is None and not database_home(task.home).exists():
        raise ConfigError(
            f"There is no database in {task.home}, so there are no synapses to map. Let 'run_dir' be "
            "the folder of the run that detected them (where its summary.json is), or name its "
            "'db_host'."
        )


def check_unmapped(context: RunContext, synapses: str, kind: str) -> None:
    """Raise unless `synapses` is a run that no run of this `kind` but this one maps."""
    records, rows = context.records, context.rows(SYNAPSES, synapses)
    if records.of_run(synapses).load() is None and rows.is_empty():
        raise ConfigError(
            f"The database has no synapses of a run {synapses!r}; there are some of "
            f"{', '.join(map(repr, rows.runs())) or 'no run'}. Set 'synapses' to the run that detected "
            "them, and 'db_name' to its database."
        )
    if other := records.other_run({"task": kind, "config.synapses": synapses}):
        raise RefusedError(
            f"The synapses of run {synapses!r} are mapped by the run {other!r} already, and two runs "
            "would overwrite each other's fields. Use that name, with --overwrite where the labels are "
            "others, or map another run."
        )


def check_table_is_whole(records: RunStore) -> None:
    """Raise `RefusedError` if the change of a run to another look-up table was interrupted."""
    change = (records.load() or {}).get("remap")
    if change is not None:
        raise RefusedError(
            f"The change of run {records.run!r} to another look-up table was interrupted, so some "
            f"segments are of {change['from']} and some of {change['to']}. Finish it first: `em-blocks "
            f"map-synapses CONFIG --lut {change['to']}`, or --lut with the other one to go back."
        )


def check_covered(rows: RowStore[Synapses], frame: Frame, box: Box, name: str) -> None:
    """Raise `ConfigError` unless all sites lie in voxels of `box`."""
    whole, tiny = frame.to_roi(box), [ROUNDING_VOXELS * v for v in frame.voxel_size]
    # A position that rounding errors put before a voxel's corner is one on it.
    begin = [o - t for o, t in zip(whole.offset, tiny, strict=True)]
    found = rows.outside(Roi(begin, whole.shape))
    if found is None:
        return
    raise ConfigError(
        f"{found.n} synapses of run {rows.run!r} have a site outside of {name}, the first of them id "
        f"{found.id} at {_short(found.position)} nm (zyx); the volume covers {_short(whole.offset)} to "
        f"{_short(whole.end)}. Check voxel size and offset of both; if the volume is meant to be "
        "smaller, set 'outside' to \"leave\", and these sites stay without object. Nothing was written."
    )


def _short(position: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(float(p), 3) for p in position)
