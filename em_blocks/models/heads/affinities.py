"""Affinities to the partners of a neighborhood."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from em_blocks.config import VoxelSize
from em_blocks.geometry import Triple
from em_blocks.kernels.segmentation.affinities import affinities, erode_labels
from em_blocks.kernels.transforms.symmetry import Part, Symmetry, undo_affinities
from em_blocks.models.head import Better, Head, Storage
from em_blocks.models.scores.voxels import (
    DIRECT,
    agglomeration_voi,
    average_precision,
    balanced_cross_entropy,
    f1,
    mean_of_known,
)
from em_blocks.models.sources import Corner, Name
from em_blocks.models.truth import ANNOTATED, LABELS, Truth
from em_blocks.nets.losses import BalancedBCE


class AffinityHead(Head):
    """Affinities to the partners of a neighborhood."""

    kind: Literal["affinities"] = "affinities"
    channels: PositiveInt
    activation: Literal["sigmoid"] = "sigmoid"
    neighborhood: tuple[Triple, ...] = Field(
        description="Shift to the partner of every channel, voxels (z, y, x)."
    )
    boundary: Corner = Field(
        (0, 0, 0), description="Voxels of each object's rim that count as membrane (z, y, x)."
    )
    labels: Name = Field(
        LABELS, exclude_if=lambda name: name == LABELS, description="Label volume of the objects."
    )
    unpainted: Literal["unknown", "background"] = Field(
        "unknown", exclude_if=lambda meaning: meaning == "unknown",
        description="What 0 is among the labels: unknown, as between neurons, or background, as between "
        "organelles, which has affinity 0 to everything where the source is annotated.",
    )
    weight: PositiveFloat = Field(
        1.0, exclude_if=lambda weight: weight == 1.0,
        description="Weight of the loss among those of all heads.",
    )

    @model_validator(mode="after")
    def _one_channel_per_shift(self) -> Self:
        if self.channels != len(self.neighborhood):
            raise ValueError(
                f"channels is {self.channels}, but the neighborhood has "
                f"{len(self.neighborhood)} shifts: one channel each is needed"
            )
        return self

    @property
    def default_loss(self) -> BalancedBCE:
        return BalancedBCE()

    @property
    def needs(self) -> frozenset[str]:
        masks = {f"masks/{ANNOTATED}"} if self.unpainted == "background" else set()
        return frozenset({f"labels/{self.labels}", *masks})

    def reach(self, voxel_size: VoxelSize) -> Triple:
        z, y, x = np.abs(self.neighborhood).max(axis=0) + self.boundary
        return int(z), int(y), int(x)

    def targets(self, truth: Truth) -> dict[str, np.ndarray]:
        labels = truth.labels[self.labels]
        known = truth.masks[ANNOTATED] if self.unpainted == "background" else labels
        rimmed = erode_labels(labels, self.boundary)
        made = affinities(rimmed, self.neighborhood, known=known != 0)
        return {"target": made.values, "mask": made.mask}

    def score_names(self) -> dict[str, Better]:
        names: dict[str, Better] = {"cut_ap": "higher", "cut_f1": "higher", "balanced_ce": "lower"}
        names |= dict.fromkeys(map(_of_shift, self.neighborhood), "higher")
        if self.neighborhood[:3] == DIRECT:
            names |= {"voi_split": "lower", "voi_merge": "lower"}
        return names

    def scores(self, predicted: np.ndarray, truth: Truth) -> dict[str, float]:
        """Score affinities; "cut" is the class of pairs in different objects.

        It is the rare one, on which a segmentation depends.
        """
        wanted = self.targets(truth)
        channels = [
            _channel_scores(*arrays)
            for arrays in zip(predicted, wanted["target"], wanted["mask"], strict=True)
        ]
        result = {key: mean_of_known([s[key] for s in channels]) for key in channels[0]}
        for shift, channel in zip(self.neighborhood, channels, strict=True):
            result[_of_shift(shift)] = channel["cut_ap"]
        if self.neighborhood[:3] == DIRECT:
            voi = agglomeration_voi(predicted[:3], truth.labels[self.labels])
            result |= {"voi_split": voi.split, "voi_merge": voi.merge}
        return result

    @property
    def storage(self) -> Storage:
        return Storage(attributes={"neighborhood": [list(shift) for shift in self.neighborhood]})

    def inverse(self, values: np.ndarray, symmetry: Symmetry) -> Iterable[Part]:
        return undo_affinities(values, symmetry, self.neighborhood)


def _of_shift(shift: Triple) -> str:
    """Name the average precision of one channel."""
    return f"cut_ap_{'_'.join(map(str, shift))}"


def _channel_scores(
    predicted: np.ndarray, target: np.ndarray, mask: np.ndarray
) -> dict[str, float]:
    known = mask.astype(bool)
    probability, joined = predicted[known], target[known].astype(bool)
    return {
        "cut_ap": average_precision(1 - probability, ~joined),
        "cut_f1": f1(probability < 0.5, ~joined),
        "balanced_ce": balanced_cross_entropy(probability, joined),
    }
