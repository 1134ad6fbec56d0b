"""Contour: 1 near the surface of instances, also where two of them touch, and 0 elsewhere."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat

from em_blocks.config import VoxelSize
from em_blocks.geometry import Triple
from em_blocks.kernels.instances.contours import contours
from em_blocks.kernels.instances.signed_distance import distance_reach
from em_blocks.models.heads.instances import InstanceMaskHead
from em_blocks.models.truth import Truth
from em_blocks.nets.weighted_losses import WeightedBCE


class ContourHead(InstanceMaskHead):
    """Contour: 1 near the surface of instances, also where two of them touch, and 0 elsewhere."""

    kind: Literal["contour"]
    activation: Literal["sigmoid"] = "sigmoid"
    inwards_nm: PositiveFloat = Field(
        20.0, description="Largest distance of a voxel of an instance to the next outside of it."
    )
    outwards_nm: NonNegativeFloat = Field(
        0.0, description="Largest distance of a voxel of the background to an instance."
    )
    dimensions: Literal[2, 3] = Field(
        3, description="2: every section has contours of its own, whatever lies above and below it."
    )

    @property
    def default_loss(self) -> WeightedBCE:
        return WeightedBCE()

    def reach(self, voxel_size: VoxelSize) -> Triple:
        widest = max(self.inwards_nm, self.outwards_nm)
        return distance_reach(widest, voxel_size, sections=self.dimensions == 2)

    def marked(self, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        return contours(
            truth.labels[self.labels], self.known(truth), voxel_size=truth.voxel_size,
            inwards=self.inwards_nm, outwards=self.outwards_nm, sections=self.dimensions == 2,
        )
