"""Which labels of slabs are one object: by their faces, over the whole volume."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from em_blocks.config import Shape3, StorePath
from em_blocks.errors import VolumeError
from em_blocks.geometry import Block, BlockGrid, Frame, Triple
from em_blocks.kernels.linking.groups import grouped, sums
from em_blocks.kernels.linking.links import (
    BACKGROUND,
    Criterion,
    FaceVoxels,
    Overlaps,
    linked,
    overlaps,
    scores,
    united,
)
from em_blocks.kernels.linking.trace import Trace, trace
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.linking.of_slabs import OfSlabs
from em_blocks.tasks.reduce import Reduce, joined, read_tables
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns, checksum_of_columns

Score = Annotated[float, Field(gt=0, le=1)]
WHOLE = "0/0/0"
"""Key of the one block."""


class Labels(NamedTuple):
    """The labels of all slabs: nodes, sorted by slab and id."""

    slab: np.ndarray
    id: np.ndarray
    voxels: np.ndarray


class Linked(NamedTuple):
    """What was decided."""

    object: np.ndarray  # of every label
    faces: np.ndarray  # (n, 3) int: slabs low and high, and the axis
    pairs: Overlaps
    score: np.ndarray
    accepted: np.ndarray
    events: Trace


class LinkLabels(OfSlabs, Reduce):
    """Second step, in one piece: the object of every label, 1, 2, ... by slab and id.

    Three outputs. ``objects`` has a look-up table for each slab (``N/0/0``: fragment, the label, and
    segment, the object); ``links`` lists all pairs of labels that meet in a face; ``events`` the faces.
    Memory: some 200 bytes for every label of a block and every pair of a face, none for voxels.
    """

    kind: Literal["link_labels"]
    tables: StorePath = Field(description="Folder of the tables that `find_faces` wrote.")
    output: StorePath = Field(description="Folder of the tables to make.")
    criterion: Criterion = Field(description="Of how much two labels agree.")
    threshold: Score = Field(description="Labels are one object from this value on.")
    mutual_best: bool = Field(False, description="Whether only best partners are linked.")
    part_shape: Shape3 = Field(description="Voxels (z, y, x) of the blocks whose tables are read.")

    def extent(self) -> tuple[Frame, Triple]:
        return self.whole.frame, self.whole.shape

    def shape_of_parts(self) -> Triple:
        return self.part_shape

    def grid(self) -> BlockGrid:
        return Reduce.grid(self)

    def sources(self) -> dict:
        return super().sources() | {"tables of faces": store.join(self.tables, "faces")}

    def inputs(self) -> dict:
        tables = TableOutput("", store.join(self.tables, "faces"))
        return super().inputs() | {"faces": tables.stored_fingerprint()}

    def output_specs(self) -> list[TableOutput]:
        return [
            TableOutput(name, store.join(self.output, name)) for name in ("objects", "links", "events")
        ]

    def outputs_root(self) -> str:
        return self.output

    def grown_inputs(self) -> set[str]:
        return {"tables"}  # a folder of all tables of a run, those of this step too

    @classmethod
    def locations(cls) -> set[str]:
        return {"output", "tables"}

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        tables = {spec.name: BlockTables(spec.path) for spec in self.output_specs()}

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                labels = labels_in(self._read("ids", block, ("slab", "id", "voxels")))
                rows = self._read("faces", block, ("low", "high", "axis", "a", "b", "voxels"))
            with report.measure("compute"):
                found = self.decide(labels, rows)
            with report.measure("write"):
                self._write_objects(tables["objects"], block, report, labels, found.object)
                report.write_table("links", tables["links"], block, link_columns(labels, found))
                report.write_table("events", tables["events"], block, event_columns(found))
            report.counts |= {
                "labels": len(labels.id), "faces": len(found.faces), **found.events.totals(),
                "objects": int(found.object.max(initial=0)),
            }

        yield process

    def decide(self, labels: Labels, rows: Columns) -> Linked:
        """Return the object of every label.

        Parameters
        ----------
        rows : columns
            Of all faces: low, high, axis, a, b, voxels.
        """
        faces, number = grouped(rows["low"], rows["high"], rows["axis"])
        counted = FaceVoxels(
            number, nodes_of(labels, rows["low"], rows["a"]),
            nodes_of(labels, rows["high"], rows["b"]), rows["voxels"],
        )
        pairs = overlaps(counted)
        score = scores(pairs, self.criterion)
        accepted = linked(pairs, score, threshold=self.threshold, mutual_best=self.mutual_best)
        objects = united(len(labels.id), pairs.a[accepted], pairs.b[accepted])
        events = trace(counted, pairs, accepted, len(faces[0]))
        return Linked(objects, np.stack(faces, axis=1), pairs, score, accepted, events)

    def _write_objects(
        self, tables: BlockTables, block: Block, report: BlockReport, labels: Labels, objects: np.ndarray
    ) -> None:
        """Store the object of every label, slab by slab."""
        ends = np.searchsorted(labels.slab, np.arange(len(self.whole) + 1))
        for slab, (begin, end) in enumerate(itertools.pairwise(ends)):
            columns = {"fragment": labels.id[begin:end], "segment": objects[begin:end]}
            if slab == 0:  # has the name of the one block of this task, which the database checks
                report.write_table("objects", tables, block, columns)
            else:
                tables.write(key_of_slab(slab), columns)
        # Of all tables: the readers of any of them are due again when it has changed.
        report.checksums["objects of all slabs"] = checksum_of_columns(
            {"slab": labels.slab, "id": labels.id, "object": objects}
        )

    def _read(self, name: str, block: Block, columns: tuple[str, ...]) -> Columns:
        return joined(read_tables(store.join(self.tables, name), self.parts(block)), columns)


def key_of_slab(number: int) -> str:
    """Return the key of the look-up table of a slab."""
    return f"{number}/0/0"


def labels_in(rows: Columns) -> Labels:
    """Return the labels of all slabs, whose voxels were counted block by block."""
    (slab, id), number = grouped(rows["slab"], rows["id"])
    return Labels(slab, id, sums(number, rows["voxels"], len(slab)))


def nodes_of(labels: Labels, slabs: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the rows of labels; `BACKGROUND` of 0.

    Raises
    ------
    VolumeError
        If a label is not there.
    """
    distinct = np.unique(np.concatenate([labels.id, ids]))
    known, wanted = (
        slab * len(distinct) + np.searchsorted(distinct, id)
        for slab, id in ((labels.slab, labels.id), (slabs, ids))
    )
    is_label = ids != 0
    if not np.isin(wanted[is_label], known).all():
        raise VolumeError(
            "The tables of faces do not fit together: a face has labels that its slab does not have. "
            "The slabs were changed while they were read; run the command again with --overwrite."
        )
    return np.where(is_label, np.searchsorted(known, wanted), BACKGROUND)


def link_columns(labels: Labels, found: Linked) -> Columns:
    """Return one row for every pair of labels that meet in a face."""
    pairs, low = found.pairs, found.faces[found.pairs.face]
    return {
        "low": low[:, 0], "high": low[:, 1], "axis": low[:, 2], "a": labels.id[pairs.a],
        "b": labels.id[pairs.b], "shared": pairs.shared, "area_a": pairs.area_a,
        "area_b": pairs.area_b, "score": found.score, "linked": found.accepted.astype(np.uint8),
        "object_a": found.object[pairs.a], "object_b": found.object[pairs.b],
    }


def event_columns(found: Linked) -> Columns:
    """Return one row for every face."""
    low, high, axis = found.faces.T
    return {"low": low, "high": high, "axis": axis, **found.events._asdict()}
