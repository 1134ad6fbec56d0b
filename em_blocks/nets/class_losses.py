"""Losses of classes that are known voxel by voxel, some voxels of some classes only.

Both take channels that exclude one another (softmax) or do not (sigmoid), and tell them apart by the
mask: one mask of all channels, (n, z, y, x), belongs to channels that exclude one another.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, Self

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor
from torch.nn import functional

from em_blocks.nets.losses import Activation, Dice, Loss

Share = Annotated[float, Field(gt=0, lt=1)]


class Known(NamedTuple):
    """Channel by channel, where a target is known for certain; (n, c, z, y, x) float32 tensors."""

    target: Tensor
    mask: Tensor


def certain(target: Tensor, mask: Tensor) -> Known:
    """Find the voxels whose membership of each channel is certain.

    Parameters
    ----------
    target : (n, c, z, y, x) tensor
        1 where a voxel is of a class; where channels exclude one another: where it may be of it.
    mask : (n, c, z, y, x) or (n, z, y, x) tensor

    Returns
    -------
    Known
        With one mask of all channels, a voxel is known of a channel that it cannot be of, and of the
        only one that it can.
    """
    target, mask = target.float(), mask.float()
    if mask.ndim == target.ndim:
        return Known(target * mask, mask)
    single = (target.sum(1, keepdim=True) == 1).float()
    known = mask[:, None] * torch.maximum(single.expand_as(target), 1 - target)
    return Known(target * known, known)


class _Balanced(Loss):
    """Cross entropy in which the classes of a batch weigh the same, whatever their numbers of voxels.

    A voxel weighs 1 / (number of classes x share of its class among the known voxels of the batch);
    the loss is the weighted mean. Channels that do not exclude one another are two classes each, the
    class and the rest, and the loss is the mean of the channels with any known voxel. Of channels
    that exclude one another, a voxel may be of several: it adds the logarithm of the sum of their
    probabilities, and weighs as one of the first of them.

    References
    ----------
    Balance: `BalanceLabels` of gunpowder, and doi:10.1083/jcb.202208005. Sum of the possible classes:
    marginal likelihood, doi:10.1016/j.media.2021.101979.
    """

    clip: tuple[Share, Share] = Field(
        (0.01, 0.99),
        description="Shares of classes count as at least and at most these, so that a few voxels of "
        "a rare class cannot dominate a batch.",
    )
    class_weights: tuple[NonNegativeFloat, ...] | None = Field(
        None, description="Factor of every channel's voxels besides; default: all 1."
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.clip[0] > self.clip[1]:
            raise ValueError(f"`clip` is {self.clip}: give the smaller share first")
        return self

    def _entropy(self, logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        logits, target, mask = logits.float(), target.float(), mask.float()
        factors = self._factors(logits)
        if mask.ndim == logits.ndim:
            return self._of_channels(logits, target, mask, factors)
        return self._of_voxels(logits, target, mask, factors)

    def _of_channels(self, logits: Tensor, target: Tensor, mask: Tensor, factors: Tensor) -> Tensor:
        voxels = (0, 2, 3, 4)
        count = mask.sum(voxels)
        share = (target * mask).sum(voxels) / count.clamp(min=1)
        inside, outside = (
            (0.5 / part.clamp(*self.clip)).reshape(1, -1, 1, 1, 1) for part in (share, 1 - share)
        )
        weight = mask * (target * inside + (1 - target) * outside)
        error = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        per_channel = (error * weight).sum(voxels) / weight.sum(voxels).clamp(min=1e-6)
        return (factors * per_channel).sum() / (count > 0).sum().clamp(min=1)

    def _of_voxels(self, logits: Tensor, target: Tensor, mask: Tensor, factors: Tensor) -> Tensor:
        # What is unknown may be of every class: its likelihood is 1, its logarithm finite.
        possible = torch.where(mask[:, None] > 0, target, 1) > 0
        every = functional.log_softmax(logits, dim=1)
        error = -torch.logsumexp(every.masked_fill(~possible, -torch.inf), dim=1)
        first = possible.float().argmax(dim=1)
        counts = torch.stack([(mask * (first == c)).sum() for c in range(logits.shape[1])])
        share = counts / counts.sum().clamp(min=1)
        weight = mask * (1 / (len(counts) * share.clamp(*self.clip)))[first]
        return (error * weight * factors[first]).sum() / weight.sum().clamp(min=1e-6)

    def _factors(self, logits: Tensor) -> Tensor:
        factors = self.class_weights or (1.0,) * logits.shape[1]
        return torch.tensor(factors, dtype=torch.float32, device=logits.device)


class BalancedCE(_Balanced):
    """Cross entropy in which the classes of a batch weigh the same, whatever their numbers of voxels."""

    kind: Literal["balanced_ce"] = "balanced_ce"

    def __call__(
        self, logits: Tensor, target: Tensor, mask: Tensor, *, activate: Activation = torch.sigmoid
    ) -> Tensor:
        return self._entropy(logits, target, mask)


class CEDice(_Balanced):
    """Balanced cross entropy plus the soft Dice loss of every channel's certain voxels."""

    kind: Literal["ce_dice"] = "ce_dice"
    dice: PositiveFloat = Field(1.0, description="Weight of the Dice loss against the other.")
    smooth: PositiveFloat = Field(1.0, description="As that of the loss `dice`.")

    def __call__(
        self, logits: Tensor, target: Tensor, mask: Tensor, *, activate: Activation = torch.sigmoid
    ) -> Tensor:
        dice = Dice(smooth=self.smooth)(logits, *certain(target, mask), activate=activate)
        return self._entropy(logits, target, mask) + self.dice * dice
