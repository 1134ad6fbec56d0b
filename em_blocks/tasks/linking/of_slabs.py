"""The base of the steps that link slabs: what they read, and their blocks."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, ClassVar

from pydantic import Field

from em_blocks.config import Shape3, VolumeRef
from em_blocks.errors import ConfigError
from em_blocks.geometry import BlockGrid
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.linking.slabs import Slabs

SlabRefs = Annotated[
    tuple[VolumeRef, ...],
    Field(min_length=1, description="Volumes of ids, in any order, each labelled for itself. Together "
          "they fill a box, without gaps, and no two overlap."),
]
Cut = Annotated[
    Shape3 | None,
    Field(description="Voxels (z, y, x) of the pieces of each volume that were labelled for themselves, "
          "such as the blocks of another program; from its first voxel on. Default: a volume is one "
          "piece."),
]


class OfSlabs(BlockwiseTask):
    """A step whose blocks are those of the volume that all slabs make together."""

    reads: ClassVar[tuple[str, ...]] = ("slabs",)

    slabs: SlabRefs
    cut: Cut = None

    def grid(self) -> BlockGrid:
        return BlockGrid(self.whole.frame, self.whole.shape, self.block_shape)

    def inputs(self) -> dict:
        return {"slabs": self.whole.identity()}

    def check(self) -> None:
        if self.mask is not None:
            raise ConfigError(
                "'mask' cannot be used here: labels are linked by all of their voxels in a face, and "
                "those in masked blocks would be missing. Leave the key out."
            )

    @cached_property
    def whole(self) -> Slabs:
        """The slabs, in the order of their positions."""
        return Slabs(self.slabs, self.cut)
