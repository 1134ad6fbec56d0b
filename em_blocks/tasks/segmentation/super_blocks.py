"""What tasks on the graph have in common: blocks that are super-blocks of a level."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from pydantic import Field, NonNegativeInt

from em_blocks.config import Shape3, StorePath, VolumeRef
from em_blocks.geometry import Block, BlockGrid
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.masks import masked_blocks
from em_blocks.volumes import Volume
from em_blocks.volumes.stores import store


class SuperBlockTask(BlockwiseTask):
    """A block of this task is a super-block; its parts are the blocks of the level below."""

    like: VolumeRef = Field(description="Volume of the same voxels as the fragments: the affinities.")
    fragments: StorePath = Field(description="Volume of fragments.")
    fragment_tables: StorePath = Field(description="Their tables.")
    output: StorePath = Field(description="Folder for the tables; every level has one in it.")
    level: NonNegativeInt = Field(description="0 reads the tables of blocks, others those of a level.")
    last: bool = Field(description="Whether there is no level above.")
    part_shape: Shape3 = Field(description="Voxels (z, y, x) of what the level below calls a block.")

    def grid(self) -> BlockGrid:
        return BlockGrid(self._volume.frame, self._volume.shape, self.block_shape)

    def outputs_root(self) -> str:
        return self.output

    def parts(self, block: Block) -> list[str]:
        """Keys of the parts of a super-block that the mask leaves."""
        return [
            part.key for part in self._parts.within(block.write_box) if not self._masked[part.index]
        ]

    @cached_property
    def _parts(self) -> BlockGrid:
        return BlockGrid(self._volume.frame, self._volume.shape, self.part_shape)

    @cached_property
    def _masked(self) -> np.ndarray:
        if self.mask is None:
            return np.zeros(self._parts.shape, bool)
        return masked_blocks(self.mask, self._parts)

    @cached_property
    def _volume(self) -> Volume:
        return Volume.open(self.like)

    def _folder(self, level: int, *names: str) -> str:
        return store.join(self.output, str(level), *names)
