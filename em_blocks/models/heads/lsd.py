"""Local shape descriptors: a second task, from which affinities learn what neurites look like."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from pydantic import Field, PositiveFloat

from em_blocks.config import VoxelSize
from em_blocks.geometry import Triple, triple
from em_blocks.kernels.segmentation.lsd import reach, shape_descriptors
from em_blocks.kernels.transforms.symmetry import Part, Symmetry, undo_descriptors
from em_blocks.models.head import Better, Head
from em_blocks.models.truth import LABELS, Truth
from em_blocks.nets.losses import MSE


class LsdHead(Head):
    """Local shape descriptors: a second task, from which affinities learn what neurites look like."""

    kind: Literal["lsd"]
    channels: Literal[10] = 10
    activation: Literal["sigmoid"] = "sigmoid"
    sigma_nm: PositiveFloat = Field(
        80.0, description="Standard deviation of the window that is described, nm."
    )

    @property
    def default_loss(self) -> MSE:
        return MSE()

    def reach(self, voxel_size: VoxelSize) -> Triple:
        return reach(self.sigma_nm, voxel_size)

    def targets(self, truth: Truth) -> dict[str, np.ndarray]:
        return self._described(truth, self.reach(truth.voxel_size))

    def _described(self, truth: Truth, margin: Triple) -> dict[str, np.ndarray]:
        """Describe the voxels that lie `margin` inside of the box."""
        made = shape_descriptors(
            np.ascontiguousarray(truth.labels[LABELS]),
            sigma_nm=self.sigma_nm, voxel_size=truth.voxel_size, margin=margin,
        )
        return {"target": made.values, "mask": made.mask}

    def score_names(self) -> dict[str, Better]:
        return {"mse": "lower"}

    def scores(self, predicted: np.ndarray, truth: Truth) -> dict[str, float]:
        """Return the mean squared error.

        Voxels whose window ends outside the labels do not count, unless there are no others.
        """
        sizes = zip(self.reach(truth.voxel_size), truth.shape, strict=True)
        margin = triple(min(side, (n - 1) // 2) for side, n in sizes)
        wanted = self._described(truth, margin)
        inside = triple(slice(m, n - m) for m, n in zip(margin, truth.shape, strict=True))
        known = wanted["mask"].astype(bool)
        error = np.square(predicted[(..., *inside)] - wanted["target"])[:, known]
        return {"mse": float(error.mean()) if error.size else float("nan")}

    def inverse(self, values: np.ndarray, symmetry: Symmetry) -> Iterable[Part]:
        return [((...,), undo_descriptors(values, symmetry))]
