"""What every kind of head needs for training: targets, loss and validation.

A new kind of head is a class like `AffinityTraining` and an entry in `KINDS`;
the trainer itself knows none of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import gunpowder as gp
import numpy as np
from torch import Tensor

from em_blocks.kernels.segmentation.affinities import affinities, erode_labels
from em_blocks.kernels.segmentation.lsd import reach, shape_descriptors
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.kernels.synapses.targets import partner_vectors, site_balls
from em_blocks.models.config import (
    DirectionVectorHead,
    HeadConfig,
    IndicatorHead,
    SetupConfig,
)
from em_blocks.models.schedules import scheduled
from em_blocks.nets.losses import balanced_bce, indicator_loss, masked_mse, masked_vector_mse
from em_blocks.training.data.graph import LABELS, SYNAPSES
from em_blocks.training.data.targets import (
    AffinityTarget,
    DirectionVectorTarget,
    IndicatorTarget,
    LsdTarget,
)
from em_blocks.training.scores import voxels as scores


class HeadTraining:
    """Training of one head.

    Parameters
    ----------
    name : str
    head : config of a head
    voxel_size : (3,) floats
        nm (z, y, x).

    Attributes
    ----------
    arrays : dict of name to gunpowder.ArrayKey
        What the head adds to a batch.
    """

    needs_synapses = False

    def __init__(self, name: str, head: HeadConfig, voxel_size: Sequence[float]):
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

    def loss(self, logits: Tensor, batch: dict[str, Tensor], iteration: int = 0) -> Tensor:
        """Scalar loss of (n, c, z, y, x) logits."""
        return balanced_bce(logits, batch[f"{self.name}/target"], batch[f"{self.name}/mask"])

    def validate(
        self, predicted: np.ndarray, labels: np.ndarray, synapses: Synapses | None = None
    ) -> dict[str, float]:
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
        result = {key: scores.mean_of_known([s[key] for s in channels]) for key in channels[0]}
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

    def loss(self, logits: Tensor, batch: dict[str, Tensor], iteration: int = 0) -> Tensor:
        """Scalar loss of (n, 10, z, y, x) logits."""
        error = masked_mse(logits, batch[f"{self.name}/target"], batch[f"{self.name}/mask"])
        return self.head.weight * error

    def validate(
        self, predicted: np.ndarray, labels: np.ndarray, synapses: Synapses | None = None
    ) -> dict[str, float]:
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


class SynapseTraining(HeadTraining):
    """What heads of synapses have in common. The origin of `synapses` is the corner of the labels."""

    needs_synapses = True

    @property
    def reach(self) -> tuple[int, ...]:
        """Voxels of labels that the targets need beyond the output, per side (z, y, x)."""
        return tuple(
            int(n) + 1 for n in np.ceil(self.head.radius_nm / np.asarray(self.voxel_size, float))
        )

    @property
    def geometry(self) -> dict:
        """How balls are painted into labels from the origin on."""
        return {
            "radius_nm": self.head.radius_nm, "voxel_size": self.voxel_size, "offset": (0, 0, 0),
        }

    def node(self) -> gp.BatchFilter:
        """gunpowder node that makes `arrays` from the labels and sites."""
        return self.target(
            LABELS, SYNAPSES, *self.arrays.values(), self.head.radius_nm, self.voxel_size
        )


class IndicatorTraining(SynapseTraining):
    """Training of one head that marks postsynaptic sites."""

    target = IndicatorTarget

    def loss(self, logits: Tensor, batch: dict[str, Tensor], iteration: int = 0) -> Tensor:
        """Scalar loss of (n, 1, z, y, x) logits."""
        head: IndicatorHead = self.head
        target, mask = (batch[f"{self.name}/{what}"][:, None] for what in ("target", "mask"))
        return head.weight * indicator_loss(
            logits, target, mask,
            kind=head.loss, rarest=head.rarest, gamma=head.gamma,
            balance=scheduled(head.balance, iteration),
        )

    def validate(
        self, predicted: np.ndarray, labels: np.ndarray, synapses: Synapses | None = None
    ) -> dict[str, float]:
        """Scores of a predicted indicator (1, z, y, x), voxel by voxel."""
        marked = site_balls(labels, synapses.post, **self.geometry) > 0
        known = labels != 0
        return {
            f"{self.name}/ap": scores.average_precision(predicted[0][known], marked[known]),
            f"{self.name}/balanced_ce": scores.balanced_cross_entropy(
                predicted[0][known], marked[known]
            ),
        }


class DirectionVectorTraining(SynapseTraining):
    """Training of one head that predicts where the presynaptic partner is."""

    target = DirectionVectorTarget

    def loss(self, logits: Tensor, batch: dict[str, Tensor], iteration: int = 0) -> Tensor:
        """Scalar loss of (n, 3, z, y, x) vectors in units of the head."""
        head: DirectionVectorHead = self.head
        target, mask = batch[f"{self.name}/target"], batch[f"{self.name}/mask"]
        return head.weight * masked_vector_mse(logits, target / head.unit_nm, mask)

    def validate(
        self, predicted: np.ndarray, labels: np.ndarray, synapses: Synapses | None = None
    ) -> dict[str, float]:
        """Errors of predicted vectors (3, z, y, x) where there are any; negative, nm.

        "error" is the mean length of the difference; that of the zero vector stands beside it.
        """
        truth = partner_vectors(labels, synapses.post, synapses.pre, **self.geometry)
        known = truth.mask > 0
        if not known.any():
            return {f"{self.name}/minus_error_nm": float("nan")}
        error = np.linalg.norm(predicted[:, known] - truth.vectors[:, known], axis=0)
        return {
            f"{self.name}/minus_error_nm": -float(error.mean()),
            f"{self.name}/mean_length_nm": float(
                np.linalg.norm(truth.vectors[:, known], axis=0).mean()
            ),
        }


def _channel_scores(predicted, truth, mask) -> dict[str, float]:
    known = mask.astype(bool)
    probability, joined = predicted[known], truth[known].astype(bool)
    return {
        "cut_ap": scores.average_precision(1 - probability, ~joined),
        "cut_f1": scores.f1(probability < 0.5, ~joined),
        "balanced_ce": scores.balanced_cross_entropy(probability, joined),
    }


KINDS = {
    "affinities": AffinityTraining,
    "lsd": LsdTraining,
    "indicator": IndicatorTraining,
    "direction_vectors": DirectionVectorTraining,
}


def head_trainings(config: SetupConfig) -> dict[str, HeadTraining]:
    """One training per head of a setup."""
    return {
        name: KINDS[head.kind](name, head, config.voxel_size)
        for name, head in config.heads.items()
    }
