"""What every kind of head needs for training: targets, loss and validation.

A new kind of head is a class like `AffinityTraining` and an entry in `KINDS`;
the trainer itself knows none of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import gunpowder as gp
import numpy as np
from torch import Tensor

from em_blocks.kernels.affinities import affinities, erode_labels
from em_blocks.kernels.shape_descriptors import reach, shape_descriptors
from em_blocks.nets.losses import balanced_bce, masked_mse
from em_blocks.training import scores
from em_blocks.training.config import AffinityHead, LsdHead, SetupConfig
from em_blocks.training.graph import LABELS
from em_blocks.training.targets import AffinityTarget, LsdTarget


class HeadTraining:
    """Training of one head.

    Parameters
    ----------
    name : str
    head : AffinityHead or another config of a head
    voxel_size : (3,) floats
        nm (z, y, x).

    Attributes
    ----------
    arrays : dict of name to gunpowder.ArrayKey
        What the head adds to a batch.
    """

    def __init__(self, name: str, head: AffinityHead | LsdHead, voxel_size: Sequence[float]):
        self.name, self.head, self.voxel_size = name, head, voxel_size
        self.arrays = {
            f"{name}/{what}": gp.ArrayKey(f"{name}/{what}".upper()) for what in ("target", "mask")
        }


class AffinityTraining(HeadTraining):
    """Training of one affinity head."""

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


class LsdTraining(HeadTraining):
    """Training of one head of local shape descriptors."""

    @property
    def reach(self) -> tuple[int, ...]:
        """Voxels of labels that the targets need beyond the output, per side (z, y, x)."""
        return reach(self.head.sigma_nm, self.voxel_size)

    def node(self) -> gp.BatchFilter:
        """gunpowder node that makes `arrays` from the labels."""
        return LsdTarget(LABELS, *self.arrays.values(), self.head.sigma_nm, self.voxel_size)

    def loss(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Scalar loss of (n, 10, z, y, x) logits."""
        error = masked_mse(logits, batch[f"{self.name}/target"], batch[f"{self.name}/mask"])
        return self.head.weight * error

    def validate(self, predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Mean squared error of predicted descriptors (10, z, y, x) on labels (z, y, x).

        Voxels whose window ends outside the labels do not count, unless there are no others.
        """
        margin = [
            min(side, (n - 1) // 2) for side, n in zip(self.reach, labels.shape, strict=True)
        ]
        truth = shape_descriptors(
            np.ascontiguousarray(labels),
            sigma_nm=self.head.sigma_nm, voxel_size=self.voxel_size, margin=margin,
        )
        inside = (..., *(slice(m, n - m) for m, n in zip(margin, labels.shape, strict=True)))
        error = np.square(predicted[inside] - truth.values)[:, truth.mask.astype(bool)]
        return {f"{self.name}/mse": float(error.mean()) if error.size else float("nan")}


def _channel_scores(predicted, truth, mask) -> dict[str, float]:
    known = mask.astype(bool)
    probability, joined = predicted[known], truth[known].astype(bool)
    return {
        "cut_ap": scores.average_precision(1 - probability, ~joined),
        "cut_f1": scores.f1(probability < 0.5, ~joined),
        "balanced_ce": scores.balanced_cross_entropy(probability, joined),
    }


KINDS = {"affinities": AffinityTraining, "lsd": LsdTraining}


def head_trainings(config: SetupConfig) -> dict[str, HeadTraining]:
    """One training per head of a setup."""
    return {
        name: KINDS[head.kind](name, head, config.voxel_size)
        for name, head in config.heads.items()
    }
