"""Skeletons at the sites of stored synapses: nodes by segment, and the nearest of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field

from em_blocks.config import Shape3, StorePath
from em_blocks.db.schemas.synapses import SIDES, SKELETONS, SYNAPSES
from em_blocks.geometry import Block, Box, Frame, Triple
from em_blocks.kernels.skeletons.mapping import Nodes, SkeletonIndex, without_noise
from em_blocks.kernels.synapses.table import TOO_FAR, UNMAPPED
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.outputs.table import table_fingerprint
from em_blocks.tasks.base import BlockReport, ProcessBlock, RunName
from em_blocks.tasks.reduce import Reduce, read_tables
from em_blocks.tasks.synapses.label_lookup import LabelTask, inside
from em_blocks.tasks.synapses.map_sites import MappedSites, sites_in
from em_blocks.tasks.synapses.skeleton_options import SkeletonOptions
from em_blocks.volumes.stores.tables import BlockTables


class MapNodes(LabelTask):
    """The segment at every node of the skeletons: one table per block, columns node and segment.

    A node is named by its place among all nodes. One on background has segment 0: it is not moved.
    """

    kind: Literal["map_nodes"]
    skeletons: SkeletonOptions
    output: StorePath = Field(description="Folder of the tables.")

    def inputs(self) -> dict:
        return {**super().inputs(), "skeletons": self.skeletons.identity()}

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput("nodes", self.output, rows_per_voxel=1e-6)]

    def check(self) -> None:
        super().check()
        self.skeletons.anchor  # noqa: B018  reads all files

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        grid, tables = self.grid(), BlockTables(self.output)
        whole = Box((0, 0, 0), grid.volume_shape)
        sites, covered = inside(grid.frame, whole, self.skeletons.nodes.positions)
        # Blocks ask for their nodes again and again: sorted once by block, each is a slice.
        home = np.full(len(sites), -1)
        index = np.floor(sites[covered]).astype(np.int64) // grid.block_shape
        home[covered] = np.ravel_multi_index(tuple(index.T), grid.shape)
        order = np.argsort(home, kind="stable")
        begins = np.searchsorted(home[order], np.arange(grid.n_blocks + 1))
        with self.looking_up() as look_up:

            def process(block: Block, report: BlockReport) -> None:
                number = np.ravel_multi_index(block.index, grid.shape)
                nodes = order[begins[number] : begins[number + 1]]
                with report.measure("read"):
                    found = look_up(sites[nodes])
                with report.measure("write"):
                    columns = {"node": nodes, "segment": found.segment}
                    report.write_table("nodes", tables, block, columns)
                report.counts["nodes"] = len(nodes)

            yield process


class IndexNodes(Reduce, LabelTask):
    """All nodes that may claim sites, sorted by segment: one table for the whole volume."""

    kind: Literal["index_nodes"]
    skeletons: SkeletonOptions
    nodes: StorePath = Field(description="Folder of the tables of `map_nodes`.")
    part_shape: Shape3 = Field(description="Voxels (z, y, x) of the blocks of `map_nodes`.")
    output: StorePath = Field(description="Folder of the table.")

    def extent(self) -> tuple[Frame, Triple]:
        return self._layout.frame, self._layout.shape

    def shape_of_parts(self) -> Triple:
        return self.part_shape

    def sources(self) -> dict[str, str]:
        return super().sources() | {"tables of nodes": self.nodes}

    def inputs(self) -> dict:
        # None before the tables are made, when nothing can be compared yet.
        return {"nodes": table_fingerprint(self.nodes)}

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput("node_index", self.output, rows_per_voxel=1e-6)]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        tables = BlockTables(self.output)

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                nodes = self._nodes()
            with report.measure("compute"):
                kept = without_noise(nodes, noise_nodes=self.skeletons.noise_nodes)
            with report.measure("write"):
                report.write_table("node_index", tables, block, kept._asdict())
            report.counts["claiming_nodes"] = len(kept.segment)

        yield process

    def _nodes(self) -> Nodes:
        """Return all nodes with the segments of the blocks; outside of the labels, or masked: none."""
        options = self.skeletons
        positions, skeleton = options.nodes
        segment = np.full(len(skeleton), UNMAPPED)
        for found in read_tables(self.nodes, self._parts_with(positions)):
            segment[found["node"]] = found["segment"]
        return Nodes(positions, skeleton, segment, options.anchor)

    def _parts_with(self, positions: np.ndarray) -> list[str]:
        """Return the keys of the parts that hold any of the positions and that the mask leaves."""
        grid = self.parts_grid
        sites, covered = inside(grid.frame, Box((0, 0, 0), grid.volume_shape), positions)
        index = np.unique(np.floor(sites[covered]).astype(np.int64) // grid.block_shape, axis=0)
        index = index[~self.masked_parts[tuple(index.T)]]
        return [grid.block(place).key for place in index.tolist()]


class MapSkeletons(LabelTask):
    """Write the field ``skeleton`` of presynaptic and postsynaptic sites, where there is one."""

    kind: Literal["map_skeletons"]
    synapses: RunName
    index: StorePath = Field(description="Folder of the table of `index_nodes`.")
    max_distance_nm: float | None = None

    def sources(self) -> dict[str, str]:
        return super().sources() | {"table of nodes": self.index}

    def synapse_runs(self) -> list[str]:
        return [self.synapses]

    def inputs(self) -> dict:
        return {**super().inputs(), "index": table_fingerprint(self.index)}

    def output_specs(self) -> list[MappedSites]:
        return [
            MappedSites(
                "skeletons", f"{self.db_name}.synapses", self.synapses,
                [f"{side}_skeleton" for side in SIDES], indexes=SKELETONS,
                marks={side: f"{side}_skeleton" for side in SIDES},
                # Most sites may have no skeleton; those of a new row have no supervoxel either.
                told_by={side: f"{side}_supervoxel" for side in SIDES},
                forgets=[f"{side}.skeleton" for side in SIDES],
            )
        ]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        rows, frame = context.rows(SYNAPSES, self.synapses), self.grid().frame
        (spec,) = self.output_specs()

        def process(block: Block, report: BlockReport) -> None:
            mapped, counts = {}, {"mapped": 0, "too_far": 0, "unmapped": 0}
            for side in SIDES:
                with report.measure("read"):
                    table = sites_in(rows, frame, block.write_box, side).rows
                with report.measure("compute"):
                    found = self._index.skeletons_at(
                        getattr(table, side), getattr(table, f"{side}_segment")
                    )
                mapped[side] = table.replace(**{f"{side}_skeleton": found})
                with report.measure("write"):
                    rows.update(mapped[side], [f"{side}_skeleton"])
                counts["mapped"] += int((found >= 0).sum())
                counts["too_far"] += int((found == TOO_FAR).sum())
                counts["unmapped"] += int((found == UNMAPPED).sum())
            report.checksums[spec.name] = spec.checksum_of(mapped)
            report.counts.update(counts)

        yield process

    @cached_property
    def _index(self) -> SkeletonIndex:
        """Read when the first block needs it: the steps before may still be at work at the start."""
        nodes = Nodes(**BlockTables(self.index).read("0/0/0"))
        bound = np.inf if self.max_distance_nm is None else self.max_distance_nm
        return SkeletonIndex(nodes, max_distance_nm=bound)


