"""Skeleton-aware distance: 1 on the skeleton of an instance, 0 at its rim, -1 in the background."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from em_blocks.config import VoxelSize
from em_blocks.geometry import Triple, triple
from em_blocks.kernels.instances.skeleton_distance import (
    section_distance,
    volume_distance,
    volume_reach,
)
from em_blocks.models.heads.instances import InstanceDistanceHead
from em_blocks.models.truth import Truth
from em_blocks.nets.weighted_losses import WeightedMSE


class SkeletonDistanceHead(InstanceDistanceHead):
    """Skeleton-aware distance: 1 on the skeleton of an instance, 0 at its rim, -1 in the background.

    Stored as uint8, the background and the rim are 0.
    """

    kind: Literal["skeleton_distance"]
    activation: Literal["tanh"] = "tanh"
    dimensions: Literal[2, 3] = Field(
        2, description="2: every section for itself, in pixels, piece by piece. 3: in nm, from what "
        "lies near a voxel alone; for voxels that are nearly cubes."
    )
    alpha: PositiveFloat = Field(
        1.0, description="At 1 the rim has 0; below, more of an instance has; above, all has more."
    )
    beta: PositiveFloat = Field(0.8, description="Power to which the fall to the rim is raised.")
    hole: NonNegativeInt = Field(
        16, description="In two dimensions: enclosed background of fewer pixels belongs to a piece."
    )
    context_nm: PositiveFloat = Field(
        400.0,
        description="In two dimensions: what is read around a sample. Pieces that are larger are cut, "
        "and then have the skeleton of what is seen of them.",
    )
    largest_nm: PositiveFloat = Field(
        150.0, description="In three dimensions: what is farther from the surface is skeleton."
    )

    @property
    def default_loss(self) -> WeightedMSE:
        return WeightedMSE(background=-1.0)

    @model_validator(mode="after")
    def _keys_of_its_dimensions(self) -> Self:
        other = {2: ("largest_nm",), 3: ("hole", "context_nm")}[self.dimensions]
        if given := [key for key in other if key in self.model_fields_set
                     and getattr(self, key) != type(self).model_fields[key].default]:
            raise ValueError(
                f"{given} have no meaning with `dimensions` {self.dimensions}: leave them out"
            )
        return self

    def reach(self, voxel_size: VoxelSize) -> Triple:
        if self.dimensions == 3:
            return volume_reach(self.largest_nm, voxel_size)
        return triple((0, *(int(self.context_nm // size) + 1 for size in voxel_size[1:])))

    def targets(self, truth: Truth) -> dict[str, np.ndarray]:
        known = self.known(truth)
        ids = np.where(known, truth.labels[self.labels], 0)
        falls = {"alpha": self.alpha, "beta": self.beta}
        if self.dimensions == 2:
            made = section_distance(ids, hole=self.hole, **falls)
        else:
            made = volume_distance(
                ids, voxel_size=truth.voxel_size, largest=self.largest_nm, **falls
            )
        return {"target": made[None], "mask": known[None].astype(np.uint8)}
