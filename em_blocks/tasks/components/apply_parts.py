"""Write a volume of ids after the clean-up of their parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from em_blocks.config import Shape3, StorePath, VolumeRef
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Block, BlockGrid, Box, Triple
from em_blocks.kernels.components.block_components import Connectivity, find_parts
from em_blocks.outputs import RunContext, TableOutput, VolumeOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.tasks.components.find_parts import flat_voxels, identity_of
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format, block_shards
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns

IdType = Literal["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"]


class ApplyParts(BlockwiseTask):
    """Last step of a clean-up: the ids of all blocks, as `JoinParts` decided.

    In a block where a part changes, the parts are found again, and named by their first voxels.
    """

    reads: ClassVar[tuple[str, ...]] = ("labels", "changes",)

    name: ClassVar[str] = "cleaned"
    """Of the output."""

    kind: Literal["apply_parts"]
    labels: VolumeRef = Field(description="Volume of ids.")
    changes: StorePath = Field(description="Folder of the table of changes.")
    output: StorePath = Field(description="Array to make.")
    dtype: IdType = Field(description="Of the output.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"

    def grid(self) -> BlockGrid:
        return BlockGrid(self._labels.frame, self._labels.shape, self.block_shape)

    def inputs(self) -> dict:
        changes = TableOutput("changes", self.changes)
        return {"labels": identity_of(self._labels), "changes": changes.stored_fingerprint()}

    def output_specs(self) -> list[VolumeOutput]:
        return [
            VolumeOutput(
                name=self.name, path=self.output, dtype=self.dtype, chunk_shape=self.chunk_shape,
                format=self.format, shard_shape=block_shards(self.format, self.block_shape),
                attributes={"labels": True},
            )
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    @classmethod
    def locations(cls) -> set[str]:
        return {"output", "changes"}

    def check(self) -> None:
        if np.iinfo(self.dtype).max < np.iinfo(self._labels.dtype).max:
            raise ConfigError(
                f"'dtype' is {self.dtype}, but the labels are {self._labels.dtype}: their ids may not "
                "fit. Use that of the labels, or a larger one."
            )

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        labels, output = self._labels, Volume.open(self.output, mode="r+")
        tables, dtype = BlockTables(self.changes), np.dtype(self.dtype)

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                values = self.ids_in(block.write_box)
                changes = changes_in_block(tables, block)
            with report.measure("compute"):
                cleaned = apply_changes(
                    values, changes, block.write_box, labels.shape, dtype, self.neighbours
                )
            with report.measure("write"):
                report.write(self.name, output, block.write_box, cleaned)

        yield process

    def ids_in(self, box: Box) -> np.ndarray:
        """Ids of the voxels of a box."""
        return self._labels.read(box)

    @property
    def neighbours(self) -> Connectivity:
        """What joins two voxels, as when the parts were found."""
        return 26

    @cached_property
    def _labels(self) -> Volume:
        return Volume.open(self.labels)


def changes_in_block(tables: BlockTables, block: Block) -> Columns:
    """Read what `JoinParts` changes in a block: voxel (first of each part) and id."""
    z, y, x = block.index
    found = tables.read(f"{z}/{y}/0")
    here = found["block"] == x
    return {name: found[name][here] for name in ("voxel", "id")}


def apply_changes(
    values: np.ndarray, changes: Columns, box: Box, shape: Triple, dtype: np.dtype,
    connectivity: Connectivity = 26,
) -> np.ndarray:
    """The ids of a block after the clean-up.

    Parameters
    ----------
    values : (z, y, x) integer array
        Ids of the block `box` of a volume of `shape` voxels.
    changes : columns
        As `JoinParts` wrote them for this block.

    Raises
    ------
    VolumeError
        If a part that should change is not there.
    """
    if not len(changes["voxel"]):
        return values.astype(dtype)
    parts = find_parts(values, connectivity)
    ids = np.zeros(len(parts.ids) + 1, dtype)  # 0 stays 0
    ids[1:] = parts.ids
    changed_ids(ids, parts.first, changes, box, shape)
    return ids[parts.numbers]


def changed_ids(
    ids: np.ndarray, first: np.ndarray, changes: Columns, box: Box, shape: Triple
) -> None:
    """Give parts of a block their new ids.

    Parameters
    ----------
    ids : (n + 1,) integer array
        Ids by the numbers of parts; is changed.
    first : (n,) int array
        First voxels of the parts in the flat block `box` of a volume of `shape` voxels.
    changes : columns
        As `JoinParts` wrote them for this block.

    Raises
    ------
    VolumeError
        If a part that should change is not there.
    """
    voxels = flat_voxels(first, box, shape)  # ascending: parts are in this order
    places = np.searchsorted(voxels, changes["voxel"])
    if not np.array_equal(voxels.take(places, mode="clip"), changes["voxel"]):
        raise VolumeError(
            f"The parts of ids in the voxels {box.offset} to {box.end} (zyx) are not those that were "
            "found before: the labels have changed since. Run the clean-up again with --overwrite."
        )
    ids[places + 1] = changes["id"]
