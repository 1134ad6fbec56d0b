"""Clean a segmentation: no id in several pieces, no crumbs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, PositiveInt

from em_blocks.config import Shape3, StorePath
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Block, BlockGrid, Box, Triple
from em_blocks.kernels.parts import find_parts
from em_blocks.tasks.base import BlockReport, BlockwiseTask, OutputSpec, ProcessBlock, TableSpec
from em_blocks.tasks.find_parts import (
    MAX_ID,
    FindParts,
    check_ids,
    flat_voxels,
    identity_of,
)
from em_blocks.tasks.join_parts import Fraction, JoinParts, changes_in_block
from em_blocks.volumes import Volume, store
from em_blocks.volumes.formats import Format
from em_blocks.volumes.tables import BlockTables, Columns

_USUAL_BLOCK = 256
"""Voxels per axis."""


class Clean(BlockwiseTask):
    """Every id becomes one connected object: last of three steps, which `steps` names.

    The voxels of an id that are connected by faces, edges or corners (26 neighbours) are a part. The
    largest part keeps the id, the one that begins first (z slowest) of equally large ones. Another
    part becomes an object with a new id if it has at least `fraction` of the voxels of the id and
    at least `min_size` voxels; otherwise its voxels become 0. Ids of fewer than `min_size` voxels
    are erased. New ids are the numbers above the largest id of the volume, in the order of old id
    and first voxel. Nothing of this depends on the blocks.

    The parts are found in every block (`FindParts`), joined over the whole volume (`JoinParts`),
    and those that change are found again and written here.
    """

    kind: Literal["clean"]
    labels: StorePath = Field(description="Volume of ids to clean; is not changed.")
    output: StorePath = Field(description="Array to make, e.g. data/brain.zarr/cleaned.")
    fraction: Fraction = Field(
        0.1, description="Share of an id's voxels from which on a part becomes an object of its own."
    )
    min_size: PositiveInt = Field(100, description="Voxels that every object has at least.")
    dtype: Literal["uint8", "uint16", "uint32", "uint64"] | None = Field(
        None, description="Of the output. Default: that of the labels."
    )
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"
    block_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) that one block writes. Default: about 256 per axis."
    )

    def steps(self) -> list[BlockwiseTask]:
        """The three tasks of the whole clean-up."""
        shared = {
            name: getattr(self, name) for name in BlockwiseTask.operational
        } | {"labels": self.labels, "block_shape": self._block_shape, "run_dir": str(self.home)}
        return [
            FindParts.from_dict({
                **shared, "kind": "find_parts", "run": f"{self.run}_parts", "output": self._tables,
                "mask": self.mask,
            }),
            JoinParts.from_dict({
                **shared, "kind": "join_parts", "run": f"{self.run}_join", "num_workers": 1,
                "tables": self._tables, "output": self._changes, "fraction": self.fraction,
                "min_size": self.min_size,
                "largest_id": min(MAX_ID, int(np.iinfo(self._dtype).max)),
            }),
            self,
        ]

    # -- what a task defines ----------------------------------------------------------

    def grid(self) -> BlockGrid:
        return BlockGrid(self._labels.frame, self._labels.shape, self._block_shape)

    def inputs(self) -> dict:
        changes = TableSpec("changes", self._changes)
        return {"labels": identity_of(self._labels), "changes": changes.stored_fingerprint()}

    def output_specs(self) -> list[OutputSpec]:
        return [
            OutputSpec(
                name="cleaned", path=self.output, dtype=str(self._dtype),
                chunk_shape=self.chunk_shape, format=self.format,
                shard_shape=self._block_shape if self.format == "zarr3" else None,
                attributes={"labels": True},
            )
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    def relocated(self, folder: Path) -> Self:
        # run_dir stays: there are the tables of the earlier steps.
        update = {"output": str(folder / "cleaned.zarr/ids"), "run_dir": self.home}
        return self.model_copy(update=update)

    def check(self) -> None:
        for a, b in ((self.output, self.labels), (self.labels, self.output)):
            if f"{a}/".startswith(f"{b}/"):
                raise ConfigError(
                    f"The output {self.output} and the labels {self.labels} lie in each other; the "
                    "clean-up needs the labels as they are. Choose another output."
                )
        if np.iinfo(self._dtype).max < np.iinfo(self._labels.dtype).max:
            raise ConfigError(
                f"'dtype' is {self._dtype}, but the labels are {self._labels.dtype}: their ids may not "
                "fit. Use that of the labels, or a larger one."
            )

    @contextmanager
    def open(self, measured: dict) -> Iterator[ProcessBlock]:
        labels, output = self._labels, Volume.open(self.output, mode="r+")
        tables = BlockTables(self._changes)

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                values = labels.read(block.write_box)
                changes = changes_in_block(tables, block)
            with report.measure("compute"):
                box, shape = block.write_box, labels.shape
                cleaned = apply_changes(values, changes, box, shape, self._dtype)
            with report.measure("write"):
                report.write("cleaned", output, block.write_box, cleaned)

        yield process

    @property
    def _tables(self) -> str:
        return str(self.home / "tables" / self.run)

    @property
    def _changes(self) -> str:
        return store.join(self._tables, "changes")

    @cached_property
    def _labels(self) -> Volume:
        return Volume.open(self.labels)

    @property
    def _dtype(self) -> np.dtype:
        check_ids(self._labels)
        return np.dtype(self.dtype or self._labels.dtype)

    @property
    def _block_shape(self) -> Triple:
        return self.block_shape or tuple(c * max(1, round(_USUAL_BLOCK / c)) for c in self.chunk_shape)


def apply_changes(
    values: np.ndarray, changes: Columns, box: Box, shape: Triple, dtype: np.dtype
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
    parts = find_parts(values)
    voxels = flat_voxels(parts.first, box, shape)  # ascending: parts are in this order
    places = np.searchsorted(voxels, changes["voxel"])
    if not np.array_equal(voxels.take(places, mode="clip"), changes["voxel"]):
        raise VolumeError(
            f"The parts of ids in the voxels {box.offset} to {box.end} (zyx) are not those that were "
            "found before: the labels have changed since. Run the clean-up again with --overwrite."
        )
    ids = np.zeros(len(parts.ids) + 1, dtype)  # 0 stays 0
    ids[1:] = parts.ids
    ids[places + 1] = changes["id"]
    return ids[parts.numbers]
