"""Connected parts of what is 0 in a volume: its background, or what a background leaves."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from em_blocks.geometry import Box
from em_blocks.kernels.components.block_components import Connectivity
from em_blocks.kernels.components.join_components import JoinedParts
from em_blocks.outputs import TableOutput
from em_blocks.tasks.components.apply_parts import ApplyParts
from em_blocks.tasks.components.find_parts import FindParts
from em_blocks.tasks.components.join_parts import JoinParts
from em_blocks.tasks.components.planned_volume import OfPlannedVolume


class _OfZeros(OfPlannedVolume):
    """A step whose one id is that of the voxels that are 0 in `labels`."""

    connectivity: Connectivity = Field(description="Neighbours that join voxels.")

    def ids_in(self, box: Box) -> np.ndarray:
        """Return 1 where a volume is 0, else 0, also beyond it; uint8."""
        inside = box.intersect(self._labels.box)
        found = np.zeros(box.shape, np.uint8)
        found[inside.relative_to(box).slices] = self._labels.read(inside) == 0
        return found

    @property
    def neighbours(self) -> Connectivity:
        return self.connectivity


class FindZeroParts(_OfZeros, FindParts):
    """As `FindParts`, of the voxels that are 0."""

    kind: Literal["find_zero_parts"]


class ApplyZeroParts(_OfZeros, ApplyParts):
    """As `ApplyParts`, of the voxels that are 0: 1 where they stay, else 0."""

    name: ClassVar[str] = "mask"

    kind: Literal["apply_zero_parts"]

    def inputs(self) -> dict:
        return super().inputs() | {"changes": TableOutput("", self.changes).stored_fingerprint()}


class KeepLarge(JoinParts):
    """As `JoinParts`, but parts of at least `min_size` voxels keep their ids, all others are erased."""

    kind: Literal["keep_large"]

    def new_ids(self, joined: JoinedParts) -> np.ndarray:
        return np.where(joined.sizes >= self.min_size, joined.ids, 0)
