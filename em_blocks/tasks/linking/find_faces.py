"""Labels of slabs, and what they share in the faces between these."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import fastremap
import numpy as np
from pydantic import Field

from em_blocks.config import StorePath
from em_blocks.geometry import Block, Box, Triple
from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.linking.of_slabs import OfSlabs
from em_blocks.tasks.linking.slabs import Face, Slab
from em_blocks.volumes.samples import sample_boxes
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns

_ONE = (1, 1, 1)


class FindFaces(OfSlabs):
    """First step: two tables per block.

    ======  ==================================================================================
    table   columns
    ======  ==================================================================================
    ids     slab, id, voxels: the labels in the block, without 0
    faces   low, high, axis, a, b, voxels: voxels with the label `a` of the slab `low` whose neighbour
            along the axis has the label `b` of the slab `high`; 0 is a label like any other here
    ======  ==================================================================================

    Slabs are numbered in the order of their positions. A face belongs to the block with its
    voxels of the lower slab.
    """

    kind: Literal["find_faces"]
    output: StorePath = Field(description="Folder of the tables.")

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput(name, store.join(self.output, name)) for name in ("ids", "faces")]

    def outputs_root(self) -> str:
        return self.output

    def read_context(self) -> Triple:
        return _ONE

    def read_shape(self) -> Triple:
        return Box((0, 0, 0), self.block_shape).grow(_ONE).shape

    def check(self) -> None:
        super().check()
        for slab in self.whole.slabs:
            for box in sample_boxes(slab.box.shape, slab.volume.chunk_shape):
                slab.read(box.shift(slab.box.offset))

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        tables = {spec.name: BlockTables(spec.path) for spec in self.output_specs()}

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                parts = [(slab, slab.read(slab.box.intersect(block.write_box)))
                         for slab in self.whole.near(block.write_box)]
                planes = [(face, face.low.read(face.box), face.high.read(face.opposite))
                          for face in self.whole.faces(block.write_box)]
            with report.measure("compute"):
                found = {"ids": labels_of(parts), "faces": pairs_of(planes)}
            with report.measure("write"):
                for name, columns in found.items():
                    report.write_table(name, tables[name], block, columns)
            report.counts["face_voxels"] = int(found["faces"]["voxels"].sum())

        yield process


def labels_of(parts: list[tuple[Slab, np.ndarray]]) -> Columns:
    """Return the labels of parts of slabs, with their voxels: slab, id, voxels (int64)."""
    found = [(slab.number, *fastremap.unique(ids, return_counts=True)) for slab, ids in parts]
    slabs = [np.full(len(ids), number) for number, ids, _ in found]
    columns = {"slab": slabs, "id": [ids for _, ids, _ in found], "voxels": [n for *_, n in found]}
    return _without_background({name: _joined(arrays) for name, arrays in columns.items()})


def pairs_of(planes: list[tuple[Face, np.ndarray, np.ndarray]]) -> Columns:
    """Return the labels that meet in faces: low, high, axis, a, b, voxels (int64)."""
    counted = [(face, count_overlaps(segmentation=low, truth=high)) for face, low, high in planes]
    columns: dict[str, list[np.ndarray]] = {
        "low": [np.full(len(found), face.low.number) for face, found in counted],
        "high": [np.full(len(found), face.high.number) for face, found in counted],
        "axis": [np.full(len(found), face.axis) for face, found in counted],
        "a": [found.segmentation for _, found in counted],
        "b": [found.truth for _, found in counted],
        "voxels": [found.voxels for _, found in counted],
    }
    return {name: _joined(arrays) for name, arrays in columns.items()}


def _without_background(columns: Columns) -> Columns:
    labelled = columns["id"] != 0
    return {name: values[labelled] for name, values in columns.items()}


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    # Ids are below 2^63: `Slab.read` has checked it.
    return np.concatenate([np.zeros(0, np.int64), *(a.astype(np.int64) for a in arrays)])
