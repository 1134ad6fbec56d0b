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
from em_blocks.db.synapse_mapping import (
    SIDES,
    forget,
    prepare_mapping,
    sites_outside,
    sites_without,
)
from em_blocks.db.synapse_rows import FIELDS, OBJECTS
from em_blocks.db.synapses import SynapseStore
from em_blocks.errors import ConfigError, RefusedError
from em_blocks.geometry import Block, BlockGrid, Box, Frame, Roi
from em_blocks.kernels.synapses.table import BACKGROUND, Synapses
from em_blocks.kernels.transforms.positions import ROUNDING_VOXELS
from em_blocks.tasks.base import BlockReport, ProcessBlock, RunName, SynapseTask
from em_blocks.tasks.outputs import Damage, RowsSpec
from em_blocks.tasks.synapses.label_lookup import LabelTask, Objects, inside, roi_around

OF_THE_TABLE = ("config.lut:", "inputs.lut:", "outputs:")
"""How differences of two mappings begin that differ in nothing but the look-up table."""


class SitesInBlock(NamedTuple):
    """The rows with one of their sites in a block."""

    rows: Synapses
    sites: np.ndarray  # (n, 3) float64, voxels of the labels


class MapSites(LabelTask, SynapseTask):
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

    def output_specs(self) -> list[RowsSpec]:
        return [
            MappedSites(
                "sites", f"{self.db_name}.synapses", self.synapses, tuple(self._columns("pre"))
                + tuple(self._columns("post")), grid=self.grid(),
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

    def check_synapses(self, synapses: SynapseStore) -> None:
        prepare_mapping(synapses)
        rows = synapses.of_run(self.synapses)
        check_rows(rows, self.run, self.kind)
        check_table_is_whole(rows, self.run)
        grid = self.grid()
        if self.outside == "error":
            check_covered(rows, grid.frame, Box((0, 0, 0), grid.volume_shape), self.labels)

    @contextmanager
    def start(self, measured: dict, synapses: SynapseStore) -> Iterator[ProcessBlock]:
        rows, frame = synapses.of_run(self.synapses), self.grid().frame
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
        self, rows: SynapseStore, found: dict[str, SitesInBlock], objects: Objects
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

    def _update(self, rows: SynapseStore, pre: Synapses, post: Synapses) -> None:
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
class MappedSites(RowsSpec):
    """Fields of sites, written by the block that holds the site and not by the one of the row.

    Parameters
    ----------
    marks : mapping of str to str
        For each side whose sites the blocks hold, the column that they write.
    told_by : mapping of str to str, optional
        Columns whose absence tells that a row was stored anew; default: `marks`.
    forgets : sequence of str
        Fields of documents that are worth nothing without those that the task writes.
    grid : BlockGrid
    """

    marks: Mapping[str, str] = field(default_factory=dict)
    told_by: Mapping[str, str] | None = None
    forgets: Sequence[str] = ()
    grid: BlockGrid | None = None

    def nbytes(self, n_voxels: int) -> float:
        """The rows exist already."""
        return 0.0

    def remove(self, synapses: SynapseStore) -> None:
        forget(synapses.of_run(self.run), self.forgets)

    def lost(self, synapses: SynapseStore, grid: BlockGrid) -> np.ndarray:
        lost = np.zeros(grid.shape, bool)
        whole = Box((0, 0, 0), grid.volume_shape)
        for side, column in (self.told_by or self.marks).items():
            for positions in sites_without(synapses.of_run(self.run), side, FIELDS[column]):
                voxels, within = inside(grid.frame, whole, positions)
                index = np.floor(voxels[within]).astype(np.int64) // grid.block_shape
                lost[tuple(index.T)] = True
        return lost

    def checksum_of(self, tables: Mapping[str, Synapses]) -> int:
        """CRC-32 of the ids of rows and of what marks them; segments may change afterwards."""
        crc = 0
        for side, column in self.marks.items():
            for values in (tables[side].id, getattr(tables[side], column)):
                crc = zlib.crc32(np.ascontiguousarray(values), crc)
        return crc

    def damage(self, synapses: SynapseStore) -> Damage:
        rows = synapses.of_run(self.run)

        def damage(block: Block, expected: int | None) -> str | None:
            stored = {
                side: sites_in(rows, self.grid.frame, block.write_box, side).rows for side in self.marks
            }
            if self.checksum_of(stored) != expected:
                return f"{self.path} does not hold what block {block.key} wrote"
            return None

        return damage


def sites_in(rows: SynapseStore, frame: Frame, box: Box, side: str) -> SitesInBlock:
    """The rows whose presynaptic or postsynaptic site lies in a voxel of `box`, by their ids."""
    table = rows.read(roi=roi_around(frame, box), at=side)
    sites, within = inside(frame, box, getattr(table, side))
    return SitesInBlock(table.select(within), sites[within])


def check_database(task: SynapseTask) -> None:
    """Raise `ConfigError` if there is no embedded database, and so no synapses."""
    if task.db_host is None and not database_home(task.home).exists():
        raise ConfigError(
            f"There is no database in {task.home}, so there are no synapses to map. Let 'run_dir' be "
            "the folder of the run that detected them (where its summary.json is), or name its "
            "'db_host'."
        )


def check_rows(rows: SynapseStore, run: str, kind: str) -> None:
    """Raise unless `rows` are synapses of a run that no run of this `kind` but `run` maps."""
    runs = rows.synapses.database["runs"]
    made = runs.find_one({"_id": rows.run}, {"_id": 1})
    if made is None and not rows.count():
        known = sorted(rows.synapses.distinct("run"))
        raise ConfigError(
            f"The database has no synapses of a run {rows.run!r}; there are some of "
            f"{', '.join(map(repr, known)) or 'no run'}. Set 'synapses' to the run that detected "
            "them, and 'db_name' to its database."
        )
    other = runs.find_one({"task": kind, "config.synapses": rows.run, "_id": {"$ne": run}}, {"_id": 1})
    if other is not None:
        raise RefusedError(
            f"The synapses of run {rows.run!r} are mapped by the run {other['_id']!r} already, and two "
            "runs would overwrite each other's fields. Use that name, with --overwrite where the labels "
            "are others, or map another run."
        )


def check_table_is_whole(rows: SynapseStore, run: str) -> None:
    """Raise `RefusedError` if the change to another look-up table was interrupted."""
    document = rows.synapses.database["runs"].find_one({"_id": run}, {"remap": 1}) or {}
    if (change := document.get("remap")) is not None:
        raise RefusedError(
            f"The change of run {run!r} to another look-up table was interrupted, so some segments are "
            f"of {change['from']} and some of {change['to']}. Finish it first: `em-blocks map-synapses "
            f"CONFIG --lut {change['to']}`, or --lut with the other one to go back."
        )


def check_covered(rows: SynapseStore, frame: Frame, box: Box, name: str) -> None:
    """Raise `ConfigError` unless all sites lie in voxels of `box`."""
    whole, tiny = frame.to_roi(box), [ROUNDING_VOXELS * v for v in frame.voxel_size]
    # A position that rounding errors put before a voxel's corner is one on it.
    begin = [o - t for o, t in zip(whole.offset, tiny, strict=True)]
    found = sites_outside(rows, Roi(begin, whole.shape))
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
