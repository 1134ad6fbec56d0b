"""Offset from around a postsynaptic site to its presynaptic partner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from pydantic import Field, PositiveFloat
from torch import Tensor

from em_blocks.config import VoxelSize
from em_blocks.geometry import Triple
from em_blocks.kernels.synapses.targets import ball_reach, partner_vectors
from em_blocks.kernels.transforms.symmetry import Part, Symmetry, undo_vectors
from em_blocks.models.head import Better, Head, Storage
from em_blocks.models.truth import LABELS, POST, PRE, Truth
from em_blocks.nets.losses import MSE


class DirectionVectorHead(Head):
    """Offset from around a postsynaptic site to its presynaptic partner."""

    kind: Literal["direction_vectors"]
    channels: Literal[3] = 3
    activation: Literal["identity"] = "identity"
    radius_nm: PositiveFloat = Field(
        100.0, description="Vectors are learnt in balls of this radius around sites, nm."
    )
    unit_nm: PositiveFloat = Field(
        100.0, description="Length that the network calls 1; predictions are stored in nm."
    )

    @property
    def default_loss(self) -> MSE:
        return MSE()

    def objective(self, logits: Tensor, batch: Mapping[str, Tensor], iteration: int) -> Tensor:
        units = {**batch, "target": batch["target"] / self.unit_nm}
        return super().objective(logits, units, iteration)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"labels/{LABELS}", f"points/{POST}", f"points/{PRE}"})

    def reach(self, voxel_size: VoxelSize) -> Triple:
        return ball_reach(self.radius_nm, voxel_size)

    def targets(self, truth: Truth) -> dict[str, np.ndarray]:
        made = partner_vectors(
            truth.labels[LABELS], truth.points[POST], truth.points[PRE],
            radius_nm=self.radius_nm, voxel_size=truth.voxel_size, offset=truth.offset,
        )
        return {"target": made.vectors, "mask": made.mask}

    def score_names(self) -> dict[str, Better]:
        return {"minus_error_nm": "higher", "mean_length_nm": "neither"}

    def scores(self, predicted: np.ndarray, truth: Truth) -> dict[str, float]:
        """Return the mean length of the difference, negative, and that of the true vectors, nm."""
        wanted = self.targets(truth)
        known = wanted["mask"] > 0
        if not known.any():
            return dict.fromkeys(self.score_names(), float("nan"))
        vectors = wanted["target"][:, known]
        error = np.linalg.norm(predicted[:, known] - vectors, axis=0)
        return {
            "minus_error_nm": -float(error.mean()),
            "mean_length_nm": float(np.linalg.norm(vectors, axis=0).mean()),
        }

    @property
    def picture_range(self) -> tuple[float, float]:
        return -2 * self.unit_nm, 2 * self.unit_nm

    @property
    def storage(self) -> Storage:
        # 4 nm are stored as 1, and up to 508 nm fit.
        return Storage(
            dtype="int8", scales={"int8": 0.25},
            unfit={
                "uint8": "has no negative numbers: half of all partners would be lost. Use "
                '"int8" (steps of 4 nm), "float16" or "float32".'
            },
        )

    def inverse(self, values: np.ndarray, symmetry: Symmetry) -> Iterable[Part]:
        return [((...,), undo_vectors(values, symmetry))]
