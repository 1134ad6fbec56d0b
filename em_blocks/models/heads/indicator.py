"""Postsynaptic sites: 1 in a small ball around every site, 0 elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Discriminator, Field, NonNegativeFloat, PositiveFloat, Tag
from torch import Tensor

from em_blocks.config import VoxelSize
from em_blocks.geometry import Triple
from em_blocks.kernels.synapses.targets import ball_reach, site_balls
from em_blocks.models.head import Better, Head, LossConfig
from em_blocks.models.schedules import Schedule, scheduled
from em_blocks.models.scores.voxels import average_precision, balanced_cross_entropy
from em_blocks.models.truth import LABELS, POST, Truth
from em_blocks.nets.losses import BCE, MSE, Focal, Loss

IndicatorLoss = Annotated[
    Annotated[Literal["cross_entropy", "mse", "focal"], Tag("<name>")]
    | Annotated[LossConfig, Tag("<model>")],
    Discriminator(lambda value: "<name>" if isinstance(value, str) else "<model>"),
]


class IndicatorHead(Head):
    """Postsynaptic sites: 1 in a small ball around every site, 0 elsewhere."""

    kind: Literal["indicator"]
    channels: Literal[1] = 1
    activation: Literal["sigmoid"] = "sigmoid"
    radius_nm: PositiveFloat = Field(10.0, description="Of the ball around a site, nm.")
    loss: IndicatorLoss = Field(  # type: ignore[assignment]
        "cross_entropy",
        description="One of the names, which has the parameters `gamma`, `rarest` and `balance` of the "
        "head, or any loss with its own.",
    )
    gamma: NonNegativeFloat = Field(2.0, description="Exponent of the focal loss.")
    rarest: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.0007,
        description="Both classes of a batch weigh the same, but a class rarer than this fraction "
        "weighs as if it had it.",
    )
    balance: Schedule = Field(
        1.0, description="How far classes are balanced: 1 fully, 0 not at all; may change."
    )

    @property
    def default_loss(self) -> Loss:
        return self._loss_at(0)

    def _loss_at(self, iteration: int) -> Loss:
        """Return the loss of an iteration."""
        if isinstance(self.loss, Loss):
            return self.loss
        balanced = {"balance": scheduled(self.balance, iteration), "rarest": self.rarest}
        if self.loss == "focal":
            return Focal(gamma=self.gamma, **balanced)
        return MSE(**balanced) if self.loss == "mse" else BCE(**balanced)

    def objective(self, logits: Tensor, batch: Mapping[str, Tensor], iteration: int) -> Tensor:
        return self.weight * self._loss_at(iteration)(logits, batch["target"], batch["mask"])

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"labels/{LABELS}", f"points/{POST}"})

    def reach(self, voxel_size: VoxelSize) -> Triple:
        return ball_reach(self.radius_nm, voxel_size)

    def targets(self, truth: Truth) -> dict[str, np.ndarray]:
        labels = truth.labels[LABELS]
        marked = site_balls(
            labels, truth.points[POST],
            radius_nm=self.radius_nm, voxel_size=truth.voxel_size, offset=truth.offset,
        )
        return {"target": marked, "mask": (labels != 0).astype(np.uint8)}

    def score_names(self) -> dict[str, Better]:
        return {"ap": "higher", "balanced_ce": "lower"}

    def scores(self, predicted: np.ndarray, truth: Truth) -> dict[str, float]:
        """Score voxel by voxel."""
        wanted = self.targets(truth)
        known = wanted["mask"] > 0
        marked = wanted["target"][known] > 0
        return {
            "ap": average_precision(predicted[0][known], marked),
            "balanced_ce": balanced_cross_entropy(predicted[0][known], marked),
        }
