"""Signed distance to the surface of instances: positive inside, negative in the background."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, PositiveFloat

from em_blocks.config import VoxelSize
from em_blocks.geometry import Triple
from em_blocks.kernels.instances.signed_distance import distance_reach, surface_distance
from em_blocks.models.heads.instances import InstanceDistanceHead
from em_blocks.models.truth import Truth
from em_blocks.nets.weighted_losses import WeightedMSE

SATURATED = 3.0
"""Distance, in units of `unit_nm`, from which on the target is constant: tanh(3) = 0.995."""


class SignedDistanceHead(InstanceDistanceHead):
    """Signed distance to the surface of instances: tanh(nm / unit), positive inside.

    Another instance is outside, too. Stored as uint8, the background is 0.
    """

    kind: Literal["signed_distance"]
    activation: Literal["tanh"] = "tanh"
    unit_nm: PositiveFloat = Field(
        50.0, description="nm whose target is tanh(1) = 0.76; from three times that it is constant."
    )
    dimensions: Literal[2, 3] = Field(3, description="2: every section is measured for itself.")

    @property
    def default_loss(self) -> WeightedMSE:
        return WeightedMSE()

    def reach(self, voxel_size: VoxelSize) -> Triple:
        return distance_reach(
            SATURATED * self.unit_nm, voxel_size, sections=self.dimensions == 2
        )

    def targets(self, truth: Truth) -> dict[str, np.ndarray]:
        nm, certain = surface_distance(
            truth.labels[self.labels], self.known(truth), voxel_size=truth.voxel_size,
            largest=SATURATED * self.unit_nm, sections=self.dimensions == 2,
        )
        target = np.tanh(nm / self.unit_nm, dtype=np.float32)
        return {"target": target[None], "mask": certain[None].astype(np.uint8)}
