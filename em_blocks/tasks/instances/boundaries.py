"""Where fragments meet, and what the maps say there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from em_blocks.config import StorePath
from em_blocks.geometry import Block, Box, Triple
from em_blocks.kernels.instances.boundaries import Boundaries, boundaries
from em_blocks.kernels.instances.smooth import reach
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.instances.maps import Maps, open_maps, sigma_of
from em_blocks.tasks.instances.options import MapOptions
from em_blocks.tasks.objects.made import OfEarlierStep
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.tables import BlockTables


class CountBoundaries(MapOptions, OfEarlierStep):
    """Count the faces between fragments by contour and distance, each in the block of its later voxel.

    Rows are those of `em_blocks.kernels.instances.boundaries.Boundaries`.
    """

    reads: ClassVar[tuple[str, ...]] = ("labels", "foreground", "contour", "distance")

    kind: Literal["count_boundaries"]
    output: StorePath = Field(description="Folder of the table.")

    def inputs(self) -> dict:
        with open_maps(self, self.place[0]) as maps:
            return super().inputs() | maps.identity

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput("boundaries", self.output)]

    def outputs_root(self) -> str:
        return self.output

    def read_context(self) -> Triple:
        sigma = sigma_of(self.smooth_nm, self.place[0].voxel_size)
        return tuple(r + 1 for r in reach(sigma))

    def read_shape(self) -> Triple:
        return Box((0, 0, 0), self.block_shape).grow(self.read_context()).shape

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        labels, output = Volume.open(self.labels), BlockTables(self.output)
        with open_maps(self, self.place[0]) as maps:

            def process(block: Block, report: BlockReport) -> None:
                seen = block.write_box.grow((1, 1, 1)).intersect(
                    Box.between((0, 0, 0), block.write_box.end)
                )
                with report.measure("read"):
                    values = labels.read(seen)
                with report.measure("compute"):  # maps are read where fragments meet
                    found = _found(values, maps, seen, block.write_box)
                with report.measure("write"):
                    report.write_table("boundaries", output, block, found._asdict())
                report.counts["boundaries"] = len(found.u)

            yield process


def _found(labels: np.ndarray, maps: Maps, seen: Box, box: Box) -> Boundaries:
    begin = box.relative_to(seen).offset
    none = np.zeros_like(labels, np.uint8)
    if not len(boundaries(labels, none, none, begin=begin).u):
        return boundaries(labels[:0], none[:0], none[:0])
    values = maps.smoothed(seen)
    return boundaries(
        labels, values.get("contour", none), values.get("distance", none), begin=begin
    )
