"""What every kind of head needs for training: targets, loss and validation.

A new kind of head is a class like `AffinityTraining` and an entry in `KINDS`;
the trainer itself knows none of them.
"""

from __future__ import annotations

import gunpowder as gp
import numpy as np
from torch import Tensor

from em_blocks.kernels.affinities import affinities, erode_labels
from em_blocks.nets.losses import balanced_bce
from em_blocks.training import scores
from em_blocks.training.config import AffinityHead, SetupConfig
from em_blocks.training.graph import LABELS
from em_blocks.training.targets import AffinityTarget


class AffinityTraining:
    """Training of one affinity head.

    Attributes
    ----------
    arrays : dict of name to gunpowder.ArrayKey
        What the head adds to a batch.
    """

    def __init__(self, name: str, head: AffinityHead):
        self.name, self.head = name, head
        self.arrays = {
            f"{name}/{what}": gp.ArrayKey(f"{name}/{what}".upper()) for what in ("target", "mask")
        }

    @property
    def reach(self) -> tuple[int, ...]:
        """Voxels of labels that the targets need beyond the output, per side (z, y, x)."""
        return tuple(np.abs(self.head.neighborhood).max(axis=0) + self.head.boundary)

    def node(self) -> gp.BatchFilter:
        """gunpowder node that makes `arrays` from the labels."""
        return AffinityTarget(
            LABELS, *self.arrays.values(), self.head.neighborhood, self.head.boundary
        )

    def loss(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Scalar loss of (n, c, z, y, x) logits."""
        return balanced_bce(logits, batch[f"{self.name}/target"], batch[f"{self.name}/mask"])

    def validate(self, predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Scores of predicted affinities (c, z, y, x) on labels (z, y, x).

        "cut" is the class of pairs in different objects: the rare one, on
        which a segmentation depends.
        """
        truth = affinities(
            erode_labels(labels, self.head.boundary), self.head.neighborhood, known=labels != 0
        )
        channels = [
            _channel_scores(*arrays)
            for arrays in zip(predicted, truth.values, truth.mask, strict=True)
        ]
        result = {key: float(np.nanmean([s[key] for s in channels])) for key in channels[0]}
        for shift, channel in zip(self.head.neighborhood, channels, strict=True):
            result[f"cut_ap_{'_'.join(map(str, shift))}"] = channel["cut_ap"]
        if self.head.neighborhood[:3] == scores.DIRECT:
            voi = scores.agglomeration_voi(predicted[:3], labels)
            result |= {"voi_split": voi.split, "voi_merge": voi.merge}
        return {f"{self.name}/{key}": value for key, value in result.items()}


def _channel_scores(predicted, truth, mask) -> dict[str, float]:
    known = mask.astype(bool)
    probability, joined = predicted[known], truth[known].astype(bool)
    return {
        "cut_ap": scores.average_precision(1 - probability, ~joined),
        "cut_f1": scores.f1(probability < 0.5, ~joined),
        "balanced_ce": scores.balanced_cross_entropy(probability, joined),
    }


KINDS = {"affinities": AffinityTraining}


def head_trainings(config: SetupConfig) -> dict[str, AffinityTraining]:
    """One training per head of a setup."""
    return {name: KINDS[head.kind](name, head) for name, head in config.heads.items()}
