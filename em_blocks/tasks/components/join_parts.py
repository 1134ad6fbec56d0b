"""Which parts of ids stay: the parts of all blocks, joined over the whole volume."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt

from em_blocks.errors import ConfigError
from em_blocks.kernels.components.join_components import JoinedParts, join_parts, part_ids
from em_blocks.tasks.components.join_blocks import Decided, JoinBlocks
from em_blocks.volumes.stores.tables import Columns

Fraction = Annotated[float, Field(ge=0, le=1)]


class JoinParts(JoinBlocks):
    """Second step of a clean-up, in one piece: what becomes of each part."""

    kind: Literal["join_parts"]
    fraction: Fraction = Field(0.1, description="Share of an id's voxels that makes a part an object.")
    min_size: PositiveInt = Field(100, description="Voxels that an object has at least.")
    largest_id: PositiveInt = Field(description="The largest id that the cleaned volume can hold.")

    def decide(self, parts: Columns, edges: np.ndarray) -> Decided:
        found = join_parts(parts["id"], parts["size"], parts["voxel"], edges)
        ids = self.new_ids(found)
        given = ids[found.member]
        return Decided(given, given != parts["id"], _counts(found, ids))

    def new_ids(self, joined: JoinedParts) -> np.ndarray:
        """Return the id that each part of the whole volume gets; 0 for those that are erased."""
        ids = part_ids(
            joined.ids, joined.sizes, joined.first, fraction=self.fraction, min_size=self.min_size
        )
        if len(ids) and ids.max() > self.largest_id:
            raise ConfigError(
                f"Parts that become objects need new ids up to {ids.max()}, above the largest one of "
                f"{self.labels}, but the dtype of the output ends at {self.largest_id}. Set the key "
                "'dtype' to \"uint64\", or renumber the labels first."
            )
        return ids


def _counts(joined: JoinedParts, ids: np.ndarray) -> dict[str, int]:
    """Summarise the clean-up in counts."""
    return {
        "ids": len(np.unique(joined.ids)), "parts": len(ids), "kept": int((ids == joined.ids).sum()),
        "new": int(((ids != 0) & (ids != joined.ids)).sum()), "erased": int((ids == 0).sum()),
        "erased_voxels": int(joined.sizes[ids == 0].sum()),
    }
