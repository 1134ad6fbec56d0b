"""The labels that a flood begins with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from em_blocks.config import Shape3, StorePath
from em_blocks.geometry import Block, Box, Triple, triple
from em_blocks.kernels.components.runs import connect_runs, find_runs
from em_blocks.kernels.instances.decode import nested
from em_blocks.kernels.instances.flood import UNDECIDED
from em_blocks.kernels.instances.seeds import labelled
from em_blocks.outputs import RunContext, TableOutput, VolumeOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.components.apply_parts import changed_ids, changes_in_block
from em_blocks.tasks.instances.landscape import KINDS, Kind
from em_blocks.tasks.objects.made import OfEarlierStep
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format, block_shards
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns


class LabelSeeds(OfEarlierStep):
    """Label components with one seed, and the seeds or cores of the others, as `JoinSeeds` decided.

    The output is uint32: 0 is background, `UNDECIDED` what is to be flooded.
    """

    reads: ClassVar[tuple[str, ...]] = ("labels", "changes")

    kind: Literal["label_seeds"]
    changes: StorePath = Field(description="Folder of the tables of labels.")
    kinds: tuple[Kind, ...] = Field(description="Of which there are tables, the outermost first.")
    output: StorePath = Field(description="Array to make.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"

    def inputs(self) -> dict:
        return super().inputs() | {
            kind: TableOutput("", self._folder(kind)).stored_fingerprint()
            for kind in self.kinds
        }

    def sources(self) -> dict[str, str]:
        return {"labels": self.labels} | {kind: self._folder(kind) for kind in self.kinds}

    @classmethod
    def locations(cls) -> set[str]:
        return {*super().locations(), "changes"}

    def output_specs(self) -> list[VolumeOutput]:
        return [
            VolumeOutput(
                "labels", self.output, "uint32", self.chunk_shape, format=self.format,
                shard_shape=block_shards(self.format, self.block_shape), compression=0.1,
            )
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        landscape, output = Volume.open(self.labels), Volume.open(self.output, mode="r+")
        tables = {kind: BlockTables(self._folder(kind)) for kind in self.kinds}

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                values = landscape.read(block.write_box)
                changes = {kind: changes_in_block(table, block) for kind, table in tables.items()}
            with report.measure("compute"):
                found = labels_of_block(values, changes, block.write_box, landscape.shape)
            with report.measure("write"):
                report.write("labels", output, block.write_box, found)
            report.counts["undecided"] = int((found == UNDECIDED).sum())

        yield process

    def _folder(self, kind: str) -> str:
        return store.join(self.changes, kind)


def labels_of_block(
    landscape: np.ndarray, changes: dict[str, Columns], box: Box, shape: Triple
) -> np.ndarray:
    """Return the labels (z, y, x) of a block, uint32.

    Parameters
    ----------
    landscape : (z, y, x) uint8 array
        Of the block `box` of a volume of `shape` voxels.
    changes : dict of columns
        As `JoinSeeds` wrote them for this block, the outermost kind first.
    """
    rows = list(changes.values())
    if not len(rows[0]["voxel"]):
        return np.zeros(landscape.shape, np.uint32)
    inner = 0 if (rows[0]["id"] != UNDECIDED).all() else UNDECIDED
    levels = []
    for level, values in enumerate(nested(landscape, has_cores=len(rows) == len(KINDS))):
        if level == 0 or (inner and len(rows[level]["voxel"])):
            runs = find_runs(values)
            parts = connect_runs(runs, triple(landscape.shape), by_corners=False)
            labels = _labels_of(parts.first, rows[level], inner if level else 0, box, shape)
            levels.append((runs, labels[parts.numbers]))
    return labelled(triple(landscape.shape), levels)


def _labels_of(
    first: np.ndarray, changes: Columns, others: int, box: Box, shape: Triple
) -> np.ndarray:
    """Label of every number of a part, by their first voxels; `others` of those that have no row."""
    found = np.full(len(first) + 1, others, np.int64)
    found[0] = 0
    changed_ids(found, first, changes, box, shape)
    return found
