"""Steps that read a region of a volume which an earlier step of the same job makes."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field

from em_blocks.config import RoiConfig, VolumeRef
from em_blocks.geometry import Frame, Triple
from em_blocks.tasks.components.planned_volume import OfPlannedVolume
from em_blocks.tasks.region import region_of


class OfEarlierStep(OfPlannedVolume):
    """A step whose volume an earlier step makes of a region of `like`."""

    like: VolumeRef = Field(description="Volume of the same voxels, of which `roi` is cut out.")
    roi: RoiConfig | None = None

    @cached_property
    def place(self) -> tuple[Frame, Triple]:
        return region_of(self.like, self.roi)

    @classmethod
    def locations(cls) -> set[str]:
        return {*super().locations(), "labels"}
