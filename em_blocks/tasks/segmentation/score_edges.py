"""Region adjacency graph: the edges between fragments, and how strong they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import fastremap
import numpy as np
from pydantic import Field

from em_blocks.config import StorePath, VolumeRef
from em_blocks.geometry import Block, BlockGrid, Box, Triple
from em_blocks.kernels.segmentation.neighborhood import FULL
from em_blocks.kernels.segmentation.region_graph import (
    RegionGraph,
    contact_histograms,
    region_graph,
)
from em_blocks.kernels.segmentation.waterz import merge_affinities
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.outputs.volume import fingerprint_of
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.tasks.segmentation.affinity_input import AffinityInput, Shifts
from em_blocks.tasks.segmentation.extract_fragments import check_fragments
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.tables import BlockTables, Columns

HISTOGRAM_BINS = 32
"""Equal parts of 0..1; quantiles are linear within them."""

WEIGHT_UNIT = 256
"""Weights of channels are counted in 1/256, so that weighted sums stay exact integers."""


class ScoreEdges(BlockwiseTask):
    """Edges between fragments with contact area and sums of affinities, block by block.

    Every pair of voxels is counted by the block of its later voxel, so that the rows of all
    blocks add up to the graph of the whole volume, whatever the blocks. With `scores` of
    waterz, fragments of the block and `context` around it are agglomerated, and the affinity at
    which two of them became one is the score.
    """

    reads: ClassVar[tuple[str, ...]] = ("affinities", "fragments", "fragment_tables",)

    kind: Literal["score_edges"]
    affinities: VolumeRef = Field(
        description="Volume (c, z, y, x): uint8, uint16, float in 0..1, or any with its attribute scale."
    )
    neighborhood: Shifts | None = Field(
        None, description="Shift to the partner of every channel, voxels (z, y, x). Default: the "
        "attribute of the volume."
    )
    fragments: StorePath = Field(description="Volume of fragments.")
    fragment_tables: StorePath = Field(description="Their tables.")
    output: StorePath = Field(description="Folder for the tables of edges.")
    scores: Literal["mean", "quantile", "waterz_mean", "waterz_quantile"] = Field(
        "mean", description="mean: of all affinities between two fragments. quantile: of the direct "
        "ones. waterz_mean, waterz_quantile (75 %): at which they merge within the block and its "
        "surroundings."
    )
    long_range_weight: Annotated[float, Field(ge=0, le=100)] = Field(
        1.0, description="Weight of a long-range affinity in the mean; that of a direct one is 1."
    )
    context: tuple[int, int, int] = Field(
        (0, 0, 0), description="Voxels (z, y, x) around a block that waterz sees."
    )

    def grid(self) -> BlockGrid:
        volume = self._input.volume
        return BlockGrid(volume.frame, volume.shape, self.block_shape)

    def inputs(self) -> dict:
        return {
            "affinities": self._input.identity(),
            "fragments": fingerprint_of(self.fragments),
        }

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput("edges", self.output, rows_per_voxel=0.02)]

    def outputs_root(self) -> str:
        return self.output

    @classmethod
    def locations(cls) -> set[str]:
        return {"output", "fragments", "fragment_tables"}

    def read_context(self) -> Triple:
        reach = self._input.neighborhood.reach
        return tuple(max(r, c) for r, c in zip(reach, self._context, strict=True))

    def read_shape(self) -> Triple:
        context = self.read_context()
        return tuple(b + 2 * c for b, c in zip(self.grid().block_shape, context, strict=True))

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        fragments, output = Volume.open(self.fragments), BlockTables(self.output)
        tables = BlockTables(self.fragment_tables)

        def process(block: Block, report: BlockReport) -> None:
            box = self._box(block)
            with report.measure("read"):
                ids = fragments.read(box, outside="constant")
                affinities = self._input.read(box)
                known = tables.read(block.key, ["fragment", "voxels"])
            own = block.write_box.relative_to(box)
            check_fragments(
                ids[own.slices], known["voxels"], block, volume=self.fragments,
                tables=self.fragment_tables,
            )
            with report.measure("compute"):
                rows = self._rows(ids, affinities, own, known["fragment"])
            with report.measure("write"):
                report.write_table("edges", output, block, rows)
            report.counts["edges"] = len(rows["u"])

        yield process

    @property
    def _context(self) -> Triple:
        return self.context if self.scores.startswith("waterz") else (0, 0, 0)

    def _box(self, block: Block) -> Box:
        """Return the box that a block reads: partners before its voxels, and the context of waterz."""
        reach, context = self._input.neighborhood.reach, self._context
        begin = (o - max(r, c) for o, r, c in zip(block.write_box.offset, reach, context, strict=True))
        end = (e + c for e, c in zip(block.write_box.end, context, strict=True))
        return Box.between(begin, end)

    def _rows(self, ids, affinities, own: Box, complete_ids: np.ndarray) -> Columns:
        numbers, order = fastremap.renumber(ids, preserve_zero=True)
        names = np.zeros(len(order) + 1, np.int64)
        for old, new in order.items():
            names[new] = old
        numbers = numbers.astype(np.int32)
        counted = tuple(slice(None, end) for end in own.end)
        graph = region_graph(
            numbers[counted], affinities[:, *counted], self._input.neighborhood, begin=own.offset,
            complete=np.isin(names, complete_ids),
        )
        total, weight = self._scores(graph, numbers, affinities)
        u, v = names[graph.u], names[graph.v]
        order = np.lexsort((np.maximum(u, v), np.minimum(u, v)))
        order = order[weight[order] > 0]  # without any: far pairs, whose affinities do not count
        columns = {
            "u": np.minimum(u, v), "v": np.maximum(u, v), "contact": graph.contact,
            "direct": graph.direct, "long_range": graph.long_range,
            "long_range_pairs": graph.long_range_pairs, "total": total, "weight": weight,
        }
        if self.scores == "quantile":
            columns["histogram"] = contact_histograms(
                numbers[counted], affinities[:, *counted], self._input.neighborhood, graph,
                begin=own.offset, bins=HISTOGRAM_BINS,
            )
        return {name: values[order] for name, values in columns.items()}

    def _scores(self, graph: RegionGraph, numbers, affinities) -> tuple[np.ndarray, np.ndarray]:
        """Sum and weight of every edge, exact integers; their quotient is its affinity."""
        if self.scores in ("mean", "quantile"):
            # Of quantiles, the histograms are what counts, and those are of pairs that touch.
            share = round(self.long_range_weight * WEIGHT_UNIT) if self.scores == "mean" else 0
            total = WEIGHT_UNIT * graph.direct + share * graph.long_range
            pairs = WEIGHT_UNIT * graph.contact.sum(axis=1) + share * graph.long_range_pairs
            return total, pairs * FULL
        merged = merge_affinities(
            affinities[self._input.neighborhood.direct], numbers, graph.u, graph.v,
            quantile=self.scores == "waterz_quantile",
        )
        return np.rint(merged * FULL).astype(np.int64), np.full(len(merged), FULL, np.int64)

    @cached_property
    def _input(self) -> AffinityInput:
        return AffinityInput.open(self.affinities, self.neighborhood)
