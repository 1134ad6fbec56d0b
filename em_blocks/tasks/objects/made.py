"""Steps that read a region of a volume, or its tables, which earlier steps of the same job make."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field

from em_blocks.config import RoiConfig, Shape3, StorePath, VolumeRef
from em_blocks.geometry import BlockGrid, Frame, Triple
from em_blocks.tasks.components.planned_volume import OfPlannedVolume
from em_blocks.tasks.reduce import Reduce
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


class ReducesEarlierStep(OfEarlierStep, Reduce):
    """A step in one piece that reads what the blocks of an earlier step wrote about a volume."""

    part_shape: Shape3 = Field(description="Voxels (z, y, x) of those blocks.")
    output: StorePath = Field(description="Folder of the table.")

    def grid(self) -> BlockGrid:
        return Reduce.grid(self)

    def extent(self) -> tuple[Frame, Triple]:
        return self.place

    def shape_of_parts(self) -> Triple:
        return self.part_shape

    def outputs_root(self) -> str:
        return self.output

    @cached_property
    def keys_of_parts(self) -> list[str]:
        """Names of the tables of all blocks, in their order."""
        return [block.key for block in self.parts_grid.blocks()]
