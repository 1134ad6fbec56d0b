"""Score of instances: decoded from foreground and contour as in a whole volume, matched one to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, PositiveInt

from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.evaluation.object_matching import ObjectScores, match_objects, overlaps
from em_blocks.kernels.instances.decode import instances
from em_blocks.kernels.instances.landscape import Levels, as_bytes, landscape
from em_blocks.models.head import Better, Head
from em_blocks.models.joint import JointScore
from em_blocks.models.sources import Name
from em_blocks.models.truth import ANNOTATED, LABELS, Truth

Probability = Annotated[float, Field(gt=0, le=1)]


class InstanceScore(JointScore):
    """F-score and panoptic quality of the instances that `em-blocks segment-instances` would make.

    Voxels beyond the annotated ones belong to no instance. An instance that the box cuts counts as what
    lies in the box.
    """

    joins: ClassVar[dict[str, str]] = {"foreground": "foreground", "contour": "contour"}

    kind: Literal["instances"] = "instances"
    foreground: str = Field("foreground", description="Head of the foreground.")
    contour: str = Field("contour", description="Head of the contours.")
    labels: Name = Field(LABELS, description="Label volume of the true instances.")
    threshold: Probability = Field(0.5, description="Least foreground of an instance.")
    seed: Probability = Field(0.8, description="Least foreground of a seed.")
    seed_contour: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.4, description="Highest contour of a seed."
    )
    min_seed_size: PositiveInt = Field(30, description="Smallest seed, voxels.")
    min_size: PositiveInt = Field(100, description="Smallest instance, voxels.")

    @classmethod
    def of(cls, heads: Mapping[str, Head]) -> Self | None:
        made = super().of(heads)
        if made is None:
            return None
        return made.model_copy(update={"labels": getattr(heads[made.foreground], "labels", LABELS)})

    def score_names(self) -> dict[str, Better]:
        return {
            "instances/f1_50": "higher", "instances/f1_75": "higher", "instances/pq": "higher",
            "instances/found": "neither",
        }

    def scores(self, predicted: Mapping[str, np.ndarray], truth: Truth) -> dict[str, float]:
        """Score at the IoUs 0.5 and 0.75; the panoptic quality is that at 0.5."""
        known = truth.masks[ANNOTATED] != 0
        half, strict = self._matched(self.decoded(predicted) * known, truth.labels[self.labels] * known)
        found = {
            "instances/f1_50": half.fscore, "instances/f1_75": strict.fscore,
            "instances/pq": half.panoptic_quality, "instances/found": half.n_prediction,
        }
        return {name: float("nan") if value is None else float(value) for name, value in found.items()}

    def decoded(self, predicted: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the instances (z, y, x) of the predictions of both heads, (1, z, y, x) each."""
        levels = Levels.of(self.threshold, foreground=self.seed, contour=self.seed_contour)
        foreground, contour = (
            as_bytes(predicted[name][0], 1.0) for name in (self.foreground, self.contour)
        )
        return instances(
            landscape(foreground, levels, contour), min_seed_size=self.min_seed_size,
            min_size=self.min_size,
        )

    def _matched(self, found: np.ndarray, truth: np.ndarray) -> list[ObjectScores]:
        pairs = overlaps(count_overlaps(segmentation=found, truth=truth))
        return [match_objects(pairs, iou=iou) for iou in (0.5, 0.75)]
