"""Steps that read a volume which an earlier step of the same job makes."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field

from em_blocks.config import RoiConfig, VolumeRef
from em_blocks.geometry import BlockGrid, Frame, Triple
from em_blocks.outputs.volume import fingerprint_of
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.objects.threshold import region_of


class OfEarlierStep(BlockwiseTask):
    """A step whose volume is not there yet when it is planned: another one says where it will lie."""

    labels: VolumeRef
    like: VolumeRef = Field(description="Volume of the same voxels, of which `roi` is cut out.")
    roi: RoiConfig | None = None

    def grid(self) -> BlockGrid:
        return BlockGrid(*self.place, self.block_shape)

    @cached_property
    def place(self) -> tuple[Frame, Triple]:
        """Frame and shape, voxels (z, y, x)."""
        return region_of(self.like, self.roi)

    def inputs(self) -> dict:
        return {"labels": fingerprint_of(self.labels)}

    @classmethod
    def locations(cls) -> set[str]:
        return {*super().locations(), "labels", "like"}

    def check(self) -> None:
        """Accept what an earlier step of the same job makes."""
