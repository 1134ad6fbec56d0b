"""Steps that read a volume which does not exist yet when they are planned."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field

from em_blocks.config import VolumeRef
from em_blocks.geometry import BlockGrid, Frame, Triple
from em_blocks.outputs.volume import fingerprint_of
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.volumes import Volume


class OfPlannedVolume(BlockwiseTask):
    """A step whose volume an earlier step of the same job makes: another one tells its place."""

    labels: VolumeRef
    like: VolumeRef = Field(description="Volume of the same voxels, which exists already.")

    def grid(self) -> BlockGrid:
        return BlockGrid(*self.place, self.block_shape)

    @cached_property
    def place(self) -> tuple[Frame, Triple]:
        """Frame and shape, voxels (z, y, x)."""
        like = Volume.open(self.like)
        return like.frame, like.shape

    def inputs(self) -> dict:
        return {"labels": fingerprint_of(self.labels)}

    @classmethod
    def locations(cls) -> set[str]:
        return {*super().locations(), "like"}

    def check(self) -> None:
        """Accept what an earlier step of the same job makes."""
