"""Measure the parts of objects in every block, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from em_blocks.config import RoiConfig, StorePath, VolumeRef
from em_blocks.geometry import Block, BlockGrid, Frame, Triple
from em_blocks.kernels.components.numbering import number_ids
from em_blocks.kernels.components.object_measures import Measures, measure_runs
from em_blocks.kernels.components.runs import find_runs
from em_blocks.kernels.objects.grey import grey_counts
from em_blocks.kernels.objects.moments import second_moments
from em_blocks.kernels.objects.surface import count_exits
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.tasks.features.volumes import opened
from em_blocks.volumes.stores.tables import BlockTables, Columns

Feature = Literal["shape", "surface", "em"]

_MEASURES = "measures"
_NONE = ((0, 0, 0), (0, 0, 0))
_NEIGHBOURS = ((0, 1, 1), (1, 1, 1))
"""Margins of the voxels whose neighbours in `DIRECTIONS` are known."""


class Place(NamedTuple):
    """The region that is measured."""

    frame: Frame
    shape: Triple
    identity: dict


class OfMeasured(BlockwiseTask):
    """A step about the objects of a region of a volume."""

    labels: VolumeRef = Field(description="Volume of objects.")
    em: VolumeRef | None = Field(None, description="Image of the same voxels.")
    roi: RoiConfig | None = None
    features: tuple[Feature, ...]
    output: StorePath = Field(description="Folder of the tables.")

    @cached_property
    def place(self) -> Place:
        with opened(self.labels, self.em, self.roi) as found:
            return Place(found.frame, found.shape, found.identity)

    def inputs(self) -> dict:
        return self.place.identity

    def outputs_root(self) -> str:
        return self.output


class MeasureFeatures(OfMeasured):
    """Measure the part of every object that lies in a block: one table per block.

    Columns: id, voxels, and of voxel indices (z, y, x) of the region sums, begin and end; then, by
    `features`, second (moments, see `second_moments`), exits (see `count_exits`), histogram and
    contrast (see `grey_counts`). All are integers, which add up exactly.
    """

    reads: ClassVar[tuple[str, ...]] = ("labels", "em")

    kind: Literal["measure_features"]

    def grid(self) -> BlockGrid:
        return BlockGrid(self.place.frame, self.place.shape, self.block_shape)

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput(_MEASURES, self.output)]

    def read_context(self) -> Triple:
        return (0, 0, 0) if self._margin is _NONE else (1, 1, 1)

    def check(self) -> None:
        with opened(self.labels, self.em, self.roi) as found:
            found.check()

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        tables = BlockTables(self.output)
        with opened(self.labels, self.em, self.roi) as volumes:

            def process(block: Block, report: BlockReport) -> None:
                box, margin = block.write_box, self._margin
                with report.measure("read"):
                    ids = volumes.ids(box, margin)
                    image = volumes.grey(box, margin) if "em" in self.features else None
                with report.measure("compute"):
                    found = measured_parts(ids, image, box.offset, self.features)
                with report.measure("write"):
                    report.write_table(_MEASURES, tables, block, found)
                report.counts["parts"] = len(found["id"])

            yield process

    @property
    def _margin(self) -> tuple[Triple, Triple]:
        return _NEIGHBOURS if {"surface", "em"} & set(self.features) else _NONE


def measured_parts(
    ids: np.ndarray, image: np.ndarray | None, offset: Triple, features: tuple[Feature, ...]
) -> Columns:
    """Return the table of a block.

    Parameters
    ----------
    ids : (z, y, x) integer array
        With the margin of `count_exits` if `features` has surface or em.
    image : uint8 array, optional
        Grey values of the same voxels.
    offset : (3,) int
        Index of the first voxel of the block, without margin.
    """
    has_margin = {"surface", "em"} & set(features)
    own = np.ascontiguousarray(ids[:-1, 1:-1, 1:-1] if has_margin else ids)
    runs = find_runs(own)
    known, member = number_ids(runs.ids)
    found = measure_runs(runs, known, member, own.shape, offset)
    columns = found._asdict()
    if "shape" in features:
        columns["second"] = second_moments(runs, member, _local(found, offset), own.shape)
    if "surface" in features:
        columns["exits"] = count_exits(ids, runs, member, len(known))
    if "em" in features:
        counts = grey_counts(ids, image, runs, member, len(known))
        columns["histogram"], columns["contrast"] = counts
    return columns


def _local(found: Measures, offset: Triple) -> np.ndarray:
    return found.begin - np.asarray(offset, np.int64)
