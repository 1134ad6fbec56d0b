"""Bases of heads that learn instances, such as mitochondria, where 0 among the labels is background."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import numpy as np
from pydantic import Field

from em_blocks.models.counted import CountedHead
from em_blocks.models.head import Better, Head
from em_blocks.models.scores.classes import balanced_ce, class_scores, count_class
from em_blocks.models.sources import Name
from em_blocks.models.truth import ANNOTATED, LABELS, Truth

SCORES: dict[str, Better] = {
    "f1": "higher", "jaccard": "higher", "precision": "higher", "recall": "higher",
    "best_threshold": "neither", "best_f1": "higher",
}


class InstanceHead(Head):
    """A head with one channel that learns from a label volume and the mask of where it is known.

    Its targets and masks have the axis of channels, as the losses of classes need it.
    """

    channels: Literal[1] = 1
    labels: Name = Field(LABELS, description="Label volume of the instances; 0 is background there.")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"labels/{self.labels}", f"masks/{ANNOTATED}"})

    def known(self, truth: Truth) -> np.ndarray:
        """Return where instances are known, (z, y, x) bool."""
        return truth.masks[ANNOTATED] != 0


class InstanceMaskHead(InstanceHead, CountedHead):
    """A head whose target is 1 in some voxels of instances or around them, and 0 elsewhere."""

    @abstractmethod
    def marked(self, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Return what is 1, and where that is certain; (z, y, x) bool arrays."""

    def targets(self, truth: Truth) -> dict[str, np.ndarray]:
        target, mask = (values[None].astype(np.uint8) for values in self.marked(truth))
        return {"target": target, "mask": mask}

    def score_names(self) -> dict[str, Better]:
        return {**SCORES, "balanced_ce": "lower"}

    def tally(self, predicted: np.ndarray, truth: Truth) -> np.ndarray:
        """Count the voxels that are marked and the others by probability, (2, 257)."""
        return count_class(predicted[0], *self.marked(truth))

    def scores_of(self, counts: np.ndarray) -> dict[str, float]:
        scores = class_scores(counts)
        return {name: getattr(scores, name) for name in SCORES} | {"balanced_ce": balanced_ce(counts)}


class InstanceDistanceHead(InstanceHead):
    """A head whose target is a distance, negative in the background."""

    def score_names(self) -> dict[str, Better]:
        return {"mse": "lower", "mse_inside": "lower"}

    def scores(self, predicted: np.ndarray, truth: Truth) -> dict[str, float]:
        """Return the mean squared error, of all voxels and of those of instances."""
        made = self.targets(truth)
        error = np.square(predicted - made["target"])
        known, inside = made["mask"] > 0, truth.labels[self.labels][None] != 0
        return {"mse": _mean(error[known]), "mse_inside": _mean(error[known & inside])}

    @property
    def picture_range(self) -> tuple[float, float]:
        return -1.0, 1.0


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")

