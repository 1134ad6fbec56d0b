"""Shared helper: a collection that em_blocks does not know, and a task that writes its rows."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from blockwise import AddOne
from em_blocks.config import LocalPath, StorePath
from em_blocks.db.schemas.base import Index, RowSchema
from em_blocks.geometry import BlockGrid
from em_blocks.outputs import RowOutput, RunContext
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.volumes import Volume


@dataclass(frozen=True)
class Objects:
    """A table of bright voxels: id, centroid (n, 3) nm (z, y, x), brightness."""

    id: np.ndarray
    centroid: np.ndarray
    brightness: np.ndarray

    def __len__(self) -> int:
        return len(self.id)

    def sorted(self) -> Objects:
        order = np.argsort(self.id)
        return Objects(self.id[order], self.centroid[order], self.brightness[order])


class ObjectSchema(RowSchema[Objects]):
    collection = "objects"
    row = "object"
    indexes = (Index("block", ["run", "block"]), Index("brightness", ["run", "brightness"]))
    fields = {"centroid": "centroid", "brightness": "brightness"}
    positions = {"centroid": "centroid"}

    def documents(self, rows, flags, *, run, block):
        columns = zip(rows.id.tolist(), rows.centroid.tolist(), rows.brightness.tolist(), strict=True)
        return [
            {"_id": id, "run": run, "block": block, "centroid": centroid, "brightness": brightness}
            for id, centroid, brightness in columns
        ]

    def table(self, documents):
        rows = list(documents)
        return Objects(
            np.array([row["_id"] for row in rows], np.int64),
            np.array([row["centroid"] for row in rows], float).reshape(-1, 3),
            np.array([row["brightness"] for row in rows], np.int64),
        )


OBJECTS = ObjectSchema()


class MeasureObjects(BlockwiseTask):
    """Store every voxel of at least `threshold`; a block fails once after it stored other rows."""

    operational: ClassVar[frozenset[str]] = BlockwiseTask.operational | {"faults"}
    reads: ClassVar[tuple[str, ...]] = ("raw",)

    kind: Literal["measure_objects"] = "measure_objects"
    raw: StorePath
    run_dir: LocalPath
    threshold: int = 240
    faults: dict[str, str] = {}
    _fault = AddOne._fault

    def grid(self) -> BlockGrid:
        raw = Volume.open(self.raw)
        return BlockGrid(raw.frame, raw.shape, self.block_shape)

    def inputs(self) -> dict:
        return {"raw": list(Volume.open(self.raw).shape)}

    def output_specs(self) -> list[RowOutput]:
        columns = ("id", "centroid", "brightness")
        return [RowOutput(
            "objects", f"{self.db_name}.objects", self.run, columns, OBJECTS, self.database_folder
        )]

    def outputs_root(self) -> str:
        return str(self.run_dir)

    @contextmanager
    def open(self, context: RunContext):
        raw, rows = Volume.open(self.raw), context.rows(OBJECTS)
        first = rows.reserve_ids(raw.box.size)
        (output,) = self.output_specs()

        def process(block, report) -> None:
            found = objects_of(raw, block.write_box, self.threshold, first)
            if self._fault(block.key):
                rows.replace_block(block.key, Objects(found.id + 1, found.centroid, found.brightness))
                raise ValueError("after it stored other rows")
            report.write_rows(output, rows, block, found, {})

        yield process


def objects_of(raw: Volume, box, threshold: int, first: int = 0) -> Objects:
    """The voxels of a box that are at least as bright as the threshold."""
    values = raw.read(box)
    voxels = np.argwhere(values >= threshold)
    centroid = (voxels + box.offset + 0.5) * raw.frame.voxel_size + raw.frame.offset
    number = np.ravel_multi_index(tuple((voxels + box.offset).T), raw.shape)
    return Objects(first + number, centroid, values[tuple(voxels.T)].astype(np.int64))
