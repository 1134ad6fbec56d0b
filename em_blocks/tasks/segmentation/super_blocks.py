"""The base of tasks on the graph, whose blocks are super-blocks of a level."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field, NonNegativeInt

from em_blocks.config import Shape3, StorePath, VolumeRef
from em_blocks.geometry import BlockGrid, Frame, Triple
from em_blocks.tasks.reduce import Reduce
from em_blocks.volumes import Volume
from em_blocks.volumes.stores import store


class SuperBlockTask(Reduce):
    """A block of this task is a super-block; its parts are the blocks of the level below."""

    like: VolumeRef = Field(description="Volume of the same voxels as the fragments: the affinities.")
    fragments: StorePath = Field(description="Volume of fragments.")
    fragment_tables: StorePath = Field(description="Their tables.")
    output: StorePath = Field(description="Folder for the tables; every level has one in it.")
    level: NonNegativeInt = Field(description="0 reads the tables of blocks, others those of a level.")
    last: bool = Field(description="Whether there is no level above.")
    part_shape: Shape3 = Field(description="Voxels (z, y, x) of what the level below calls a block.")

    def extent(self) -> tuple[Frame, Triple]:
        return self._volume.frame, self._volume.shape

    def shape_of_parts(self) -> Triple:
        return self.part_shape

    def grid(self) -> BlockGrid:
        return BlockGrid(*self.extent(), self.block_shape)

    def outputs_root(self) -> str:
        return self.output

    @cached_property
    def _volume(self) -> Volume:
        return Volume.open(self.like)

    def _folder(self, level: int, *names: str) -> str:
        return store.join(self.output, str(level), *names)
