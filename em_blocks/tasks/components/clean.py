"""Clean a segmentation: no id in several pieces, no small components."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, PositiveInt

from em_blocks.config import Shape3, StorePath, VolumeRef
from em_blocks.geometry import nearest_multiple
from em_blocks.tasks.base import BlockwiseTask, RunConfig
from em_blocks.tasks.components.apply_parts import ApplyParts
from em_blocks.tasks.components.find_parts import MAX_ID, FindParts, check_ids
from em_blocks.tasks.components.join_parts import Fraction, JoinParts
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format
from em_blocks.volumes.stores import store

_USUAL_BLOCK = 256
"""Voxels per axis."""

_DAY_S = 86400


class Clean(RunConfig):
    """Make every id one connected object, in three runs: RUN.parts, RUN.join, RUN.cleaned.

    The voxels of an id that are connected by faces, edges or corners (26 neighbours) are a part. The
    largest part keeps the id, the one that begins first (z slowest) of equally large ones. Another
    part becomes an object with a new id if it has at least `fraction` of the voxels of the id and
    at least `min_size` voxels; otherwise its voxels become 0. Ids of fewer than `min_size` voxels
    are erased. New ids are the numbers above the largest id of the volume, in the order of old id
    and first voxel. Nothing of this depends on the blocks.
    """

    kind: Literal["clean"]
    labels: VolumeRef = Field(description="Volume of ids to clean; is not changed.")
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
        """The parts of every block, what becomes of them over the whole volume, and the result."""
        labels = Volume.open(self.labels)
        check_ids(labels)
        dtype = np.dtype(self.dtype or labels.dtype)
        tables, changes = self._tables, store.join(self._tables, "changes")
        return [
            FindParts.from_dict(self._step("find_parts", "parts", output=tables, mask=self.mask)),
            JoinParts.from_dict(self._step(
                "join_parts", "join", tables=tables, output=changes, fraction=self.fraction,
                min_size=self.min_size, largest_id=min(MAX_ID, int(np.iinfo(dtype).max)),
                num_workers=1,
                # One block for the whole volume: reading its tables takes 2 ms for each of theirs.
                block_timeout_s=max(self.block_timeout_s or 0.0, _DAY_S),
            )),
            ApplyParts.from_dict(self._step(
                "apply_parts", "cleaned", changes=changes, output=self.output, dtype=str(dtype),
                chunk_shape=self.chunk_shape, format=self.format,
            )),
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    def _step(self, kind: str, name: str, **values) -> dict:
        """The config of a step, with what all steps share."""
        shared = {key: getattr(self, key) for key in RunConfig.operational}
        block_shape = self.block_shape or nearest_multiple((_USUAL_BLOCK,) * 3, self.chunk_shape)
        return {
            **shared, "kind": kind, "run": f"{self.run}.{name}", "run_dir": str(self.home),
            "labels": self.labels, "block_shape": block_shape, **values,
        }

    @property
    def _tables(self) -> str:
        return str(self.home / "tables" / self.run)
