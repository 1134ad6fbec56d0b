"""The table of objects: measured in every block, then put together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from em_blocks.config import StorePath, VolumeRef
from em_blocks.geometry import Block, Frame, Triple
from em_blocks.kernels.components.object_measures import (
    Measures,
    measure_objects,
    merge_measures,
)
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.objects.made import OfEarlierStep, ReducesEarlierStep
from em_blocks.tasks.reduce import read_tables
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.tables import BlockTables, Columns

_MEASURES = "measures"
WHOLE = "0/0/0"
"""Key of the only block of a `Reduce`."""


class MeasureObjects(OfEarlierStep):
    """Measure the part of every object that lies in a block: one table per block.

    Columns: id, voxels, and of voxel indices (z, y, x) sums, begin and end.
    """

    reads: ClassVar[tuple[str, ...]] = ("labels",)

    kind: Literal["measure_objects"]
    labels: VolumeRef = Field(description="Volume of objects.")
    output: StorePath = Field(description="Folder of the tables.")

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput(_MEASURES, self.output)]

    def outputs_root(self) -> str:
        return self.output

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        labels, tables = Volume.open(self.labels), BlockTables(self.output)

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                values = labels.read(block.write_box)
            with report.measure("compute"):
                found = measure_objects(values, block.write_box.offset)
            with report.measure("write"):
                report.write_table(_MEASURES, tables, block, found._asdict())
            report.counts["parts"] = len(found.id)

        yield process


class ListObjects(ReducesEarlierStep):
    """One table of all objects, by ascending id. Memory: some 250 bytes for every object.

    ==================  =========================================================================
    column              meaning
    ==================  =========================================================================
    id, class           class: 1 for the first of the channels, ...
    voxels, volume_nm3
    center_nm           (z, y, x), of the voxels' middles
    begin_nm, end_nm    bounding box (z, y, x)
    cut                 1 where it touches the border of the region: it may go on outside
    ==================  =========================================================================
    """

    reads: ClassVar[tuple[str, ...]] = ("labels",)

    kind: Literal["list_objects"]
    labels: VolumeRef = Field(description="Volume of objects.")
    measures: StorePath = Field(description="Folder of the tables of blocks.")
    classes: StorePath = Field(description="Folder of the table of ids and classes.")

    def sources(self) -> dict[str, VolumeRef]:
        return super().sources() | {"measures": self.measures, "classes": self.classes}

    def inputs(self) -> dict:
        return super().inputs() | {
            name: TableOutput("", path).stored_fingerprint()
            for name, path in (("measures", self.measures), ("classes", self.classes))
        }

    @classmethod
    def locations(cls) -> set[str]:
        return {*super().locations(), "measures", "classes"}

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput("table", self.output)]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        frame, shape = self.place

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                parts = read_tables(self.measures, self.parts(block))
                classes = BlockTables(self.classes).read(WHOLE)
            with report.measure("compute"):
                found = merge_measures([Measures(**part) for part in parts])
                columns = table_of_objects(found, classes, frame, shape)
            with report.measure("write"):
                report.write_table("table", BlockTables(self.output), block, columns)
            report.counts["objects"] = len(found.id)

        yield process


def table_of_objects(found: Measures, classes: Columns, frame: Frame, shape: Triple) -> Columns:
    """Return the table of all objects.

    Parameters
    ----------
    classes : columns
        id, ascending, and class.
    frame : Frame
    shape : (3,) int
        Of the volume of objects.
    """
    size, offset = np.array(frame.voxel_size), np.array(frame.offset)
    center = found.sums / np.maximum(found.voxels, 1)[:, None] + 0.5
    at_border = (found.begin == 0) | (found.end == np.array(shape))
    place = np.searchsorted(classes["id"], found.id)
    return {
        "id": found.id, "class": classes["class"][place], "voxels": found.voxels,
        "volume_nm3": found.voxels * float(size.prod()), "center_nm": offset + center * size,
        "begin_nm": offset + found.begin * size, "end_nm": offset + found.end * size,
        "cut": at_border.any(axis=1).astype(np.uint8),
    }
