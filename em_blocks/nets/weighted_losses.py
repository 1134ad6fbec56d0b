"""Losses in which the foreground weighs as much as the background, sample by sample; hard voxels only.

They are those of the EM mitochondria pipeline (EM-pipeline-mito, 2019), with what went wrong there
corrected: hard voxels are those with the largest error of their own class, exactly so many are kept, and
the loss is their mean. Hard examples: doi:10.1109/CVPR.2016.89.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional

from em_blocks.nets.losses import Activation, Loss, Rarest, alike

VOXELS = (2, 3, 4)


class _Weighted(Loss):
    """Base of losses whose foreground weighs (1 - f) / f in a sample of which it has the share f.

    The background weighs 1; shares are those of the known voxels of a sample and channel.
    """

    rarest: Rarest = Field(
        0.01, description="A foreground with a smaller share of a sample weighs as if it had it."
    )
    background: float = Field(
        0.0, description="Targets above it are foreground: -1 for skeleton-aware distances."
    )

    @abstractmethod
    def _error(self, logits: Tensor, target: Tensor, activate: Activation) -> Tensor:
        """Return the error of every value, (n, c, z, y, x)."""

    def _weight(self, target: Tensor, mask: Tensor) -> Tensor:
        inside = (target > self.background).float()
        share = (inside * mask).sum(VOXELS, keepdim=True)
        share = (share / mask.sum(VOXELS, keepdim=True).clamp(min=1)).clamp(min=self.rarest)
        return torch.where(inside > 0, (1 - share) / share, 1.0)

    def __call__(
        self, logits: Tensor, target: Tensor, mask: Tensor, *, activate: Activation = torch.sigmoid
    ) -> Tensor:
        logits, target, mask = alike(logits, target, mask)
        target, mask = target.expand_as(logits), mask.expand_as(logits)
        error = self._error(logits, target, activate)
        return self._mean(error, self._weight(target, mask), mask)

    def _mean(self, error: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        return (error * weight * mask).sum() / mask.sum().clamp(min=1)


class WeightedMSE(_Weighted):
    """Squared error of the predictions; the foreground of a sample weighs (1 - f) / f of its share f."""

    kind: Literal["weighted_mse"] = "weighted_mse"

    def _error(self, logits: Tensor, target: Tensor, activate: Activation) -> Tensor:
        return (activate(logits) - target).square()


class WeightedBCE(_Weighted):
    """Binary cross entropy; the foreground of a sample weighs (1 - f) / f of its share f."""

    kind: Literal["weighted_bce"] = "weighted_bce"

    def _error(self, logits: Tensor, target: Tensor, activate: Activation) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


class _Hardest(_Weighted):
    """Base of losses of the known voxels with the largest errors, before these are weighted."""

    min_kept: PositiveInt = Field(
        10_000, description="Values of a batch that count, those with the largest errors of their own "
        "class; all where fewer are known."
    )
    weighted: bool = Field(
        True, description="Whether the foreground weighs (1 - f) / f; the choice never depends on it."
    )

    def _mean(self, error: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        kept = min(self.min_kept, int(mask.sum()))
        if not kept:
            return (error * mask).sum()
        ranked = error.detach().masked_fill(mask == 0, -torch.inf).flatten()
        hardest = ranked.topk(kept, sorted=False).indices
        counted = error * weight if self.weighted else error
        return counted.flatten()[hardest].mean()


class OhemMSE(_Hardest, WeightedMSE):
    """Mean squared error of the hardest voxels of a batch."""

    kind: Literal["ohem_mse"] = "ohem_mse"  # type: ignore[assignment]


class OhemBCE(_Hardest, WeightedBCE):
    """Mean binary cross entropy of the hardest voxels of a batch."""

    kind: Literal["ohem_bce"] = "ohem_bce"  # type: ignore[assignment]


class BinaryReg(Loss):
    """A term that pushes predictions away from 1/2, whatever the target: alpha / sum |p - 1/2|.

    It is added to another loss, by `sum`.
    """

    kind: Literal["binary_reg"] = "binary_reg"
    alpha: PositiveFloat = 10.0
    least: PositiveFloat = Field(0.01, description="Smaller distances from 1/2 count as this one.")

    def __call__(
        self, logits: Tensor, target: Tensor, mask: Tensor, *, activate: Activation = torch.sigmoid
    ) -> Tensor:
        logits, mask = alike(logits, mask)
        mask = mask.expand_as(logits)
        away = ((activate(logits) - 0.5).abs().clamp(min=self.least) * mask).sum()
        # Without a known voxel the sum is 0: the loss is then 0, and so is its gradient.
        return torch.where(away > 0, self.alpha / away.clamp(min=self.least), away)
