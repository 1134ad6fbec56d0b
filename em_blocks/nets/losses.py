"""Losses of network heads: models that are called, all in float32 whatever the network computes in.

A loss of another package is a subclass of `Loss` in a file of its own and an entry point of the group
"em_blocks.losses".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn import functional

from em_blocks.config import StrictModel
from em_blocks.plugins import Registry

Activation = Callable[[Tensor], Tensor]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rarest = Annotated[float, Field(gt=0, le=0.5)]


class Loss(StrictModel, ABC):
    """Base of losses: its fields are its parameters in a config, `kind` is its name there."""

    kind: str

    @abstractmethod
    def __call__(
        self, logits: Tensor, target: Tensor, mask: Tensor, *, activate: Activation = torch.sigmoid
    ) -> Tensor:
        """Compute the loss.

        Parameters
        ----------
        logits : (n, c, z, y, x) tensor
            Network output before its activation.
        target, mask : (n, c, z, y, x) or (n, z, y, x) tensors
            What the head should say; 1 where it counts and 0 elsewhere.
        activate : callable
            Makes predictions of logits, for losses that compare those with the target.

        Returns
        -------
        scalar tensor
            0 (with gradient 0) if nothing counts.
        """


class BalancedBCE(Loss):
    """Binary cross entropy in which both classes of a channel weigh the same.

    The mean is that over the channels with any unmasked voxel.
    """

    kind: Literal["balanced_bce"] = "balanced_bce"
    rarest: Rarest = Field(
        0.05,
        description="A class rarer than this fraction weighs as if it had it, so that a few voxels of "
        "noise cannot dominate a batch.",
    )

    def __call__(
        self, logits: Tensor, target: Tensor, mask: Tensor, *, activate: Activation = torch.sigmoid
    ) -> Tensor:
        logits, target, mask = alike(logits, target, mask)
        mask = mask.expand_as(logits)
        voxels = (0, 2, 3, 4)
        count = mask.sum(voxels)
        positive = (target * mask).sum(voxels) / count.clamp(min=1)
        positive = positive.clamp(self.rarest, 1 - self.rarest).reshape(1, -1, 1, 1, 1)
        weight = mask * (target * 0.5 / positive + (1 - target) * 0.5 / (1 - positive))
        loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        per_channel = (loss * weight).sum(voxels) / weight.sum(voxels).clamp(min=1e-6)
        return per_channel.sum() / (count > 0).sum().clamp(min=1)


class _VoxelLoss(Loss):
    """Base of losses that are the mean of an error of every voxel, optionally with balanced classes.

    References
    ----------
    Balancing: doi:10.1038/s41592-021-01183-7.
    """

    balance: Fraction = Field(
        0.0, description="How far the classes 0 and 1 are balanced: 1 fully, 0 not at all."
    )
    rarest: Rarest = Field(
        0.0007, description="A class rarer than this fraction is balanced as if it had it."
    )

    @abstractmethod
    def _error(self, logits: Tensor, target: Tensor, activate: Activation) -> Tensor:
        """Return the error of every value, (n, c, z, y, x)."""

    def __call__(
        self, logits: Tensor, target: Tensor, mask: Tensor, *, activate: Activation = torch.sigmoid
    ) -> Tensor:
        logits, target, mask = alike(logits, target, mask)
        error = self._error(logits, target, activate)
        if self.balance:
            error = error * self._weight(target, mask)
        if mask.shape[1] < error.shape[1]:
            error = error.mean(dim=1, keepdim=True)
        return (error * mask).sum() / mask.sum().clamp(min=1)

    def _weight(self, target: Tensor, mask: Tensor) -> Tensor:
        """Return weights, 1 / (2 f) of a class of fraction f, to the power of `balance`."""
        mask = mask.expand_as(target)
        positive = (target * mask).sum() / mask.sum().clamp(min=1)
        positive = positive.clamp(self.rarest, 1 - self.rarest)
        return torch.where(target > 0, 0.5 / positive, 0.5 / (1 - positive)) ** self.balance


class BCE(_VoxelLoss):
    """Binary cross entropy."""

    kind: Literal["bce"] = "bce"

    def _error(self, logits: Tensor, target: Tensor, activate: Activation) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


class MSE(_VoxelLoss):
    """Squared error of the predictions."""

    kind: Literal["mse"] = "mse"

    def _error(self, logits: Tensor, target: Tensor, activate: Activation) -> Tensor:
        return (activate(logits) - target).square()


class Focal(_VoxelLoss):
    """Binary cross entropy times (1 - p of the true class) ** gamma.

    References
    ----------
    doi:10.1109/ICCV.2017.324.
    """

    kind: Literal["focal"] = "focal"
    gamma: NonNegativeFloat = 2.0

    def _error(self, logits: Tensor, target: Tensor, activate: Activation) -> Tensor:
        error = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        # The power as an exponential: where the network is sure, 0 ** gamma has no gradient.
        return error * torch.exp(self.gamma * functional.logsigmoid(logits * (1 - 2 * target)))


class CrossEntropy(Loss):
    """Cross entropy of one class per voxel: `target` is (n, z, y, x) of class numbers, from 0.

    A softmax over the channels is part of the loss.
    """

    kind: Literal["cross_entropy"] = "cross_entropy"
    class_weights: tuple[NonNegativeFloat, ...] | None = Field(
        None, description="Weight of the voxels of every class; default: all the same."
    )

    def __call__(
        self, logits: Tensor, target: Tensor, mask: Tensor, *, activate: Activation = torch.sigmoid
    ) -> Tensor:
        weights = None
        if self.class_weights is not None:
            weights = torch.tensor(self.class_weights, dtype=torch.float32, device=logits.device)
        # What does not count may have any number, also none of the classes.
        known = mask > 0
        target = torch.where(known, target.long(), 0)
        loss = functional.cross_entropy(logits.float(), target, weight=weights, reduction="none")
        weight = known.float() if weights is None else known * weights[target]
        return (loss * known).sum() / weight.sum().clamp(min=1e-6)


class Dice(Loss):
    """One minus the soft Dice coefficient, mean over the channels.

    `target` is 0 or 1 per channel, or (n, z, y, x) of class numbers where there are several channels.

    References
    ----------
    doi:10.1109/3DV.2016.79, with sums of p and t instead of their squares unless `squares` is set.
    """

    kind: Literal["dice"] = "dice"
    smooth: PositiveFloat = Field(
        1.0, description="Added to both sides of the fraction: channels without a voxel have no loss."
    )
    squares: bool = Field(
        False, exclude_if=lambda squares: not squares,
        description="Whether the sizes below the fraction are sums of squares.",
    )

    def __call__(
        self, logits: Tensor, target: Tensor, mask: Tensor, *, activate: Activation = torch.sigmoid
    ) -> Tensor:
        if target.ndim < logits.ndim and logits.shape[1] > 1:
            classes = torch.where(mask > 0, target.long(), 0)
            target = functional.one_hot(classes, logits.shape[1]).movedim(-1, 1)
        logits, target, mask = alike(logits, target, mask)
        voxels = (0, 2, 3, 4)
        predicted, target = activate(logits) * mask, target * mask
        both = (predicted * target).sum(voxels)
        if self.squares:
            predicted, target = predicted.square(), target.square()
        sizes = predicted.sum(voxels) + target.sum(voxels)
        return (1 - (2 * both + self.smooth) / (sizes + self.smooth)).mean()


def alike(*tensors: Tensor) -> list[Tensor]:
    """Return float32 tensors with an axis of channels, (n, c, z, y, x)."""
    return [(t if t.ndim == tensors[0].ndim else t[:, None]).float() for t in tensors]


LOSSES = Registry(
    "em_blocks.losses",
    {
        "balanced_bce": "em_blocks.nets.losses:BalancedBCE",
        "bce": "em_blocks.nets.losses:BCE",
        "mse": "em_blocks.nets.losses:MSE",
        "focal": "em_blocks.nets.losses:Focal",
        "cross_entropy": "em_blocks.nets.losses:CrossEntropy",
        "dice": "em_blocks.nets.losses:Dice",
        "balanced_ce": "em_blocks.nets.class_losses:BalancedCE",
        "ce_dice": "em_blocks.nets.class_losses:CEDice",
        "weighted_mse": "em_blocks.nets.weighted_losses:WeightedMSE",
        "weighted_bce": "em_blocks.nets.weighted_losses:WeightedBCE",
        "ohem_mse": "em_blocks.nets.weighted_losses:OhemMSE",
        "ohem_bce": "em_blocks.nets.weighted_losses:OhemBCE",
        "binary_reg": "em_blocks.nets.weighted_losses:BinaryReg",
        "sum": "em_blocks.nets.loss_sum:LossSum",
        "discriminative": "em_blocks.nets.embedding_losses:Discriminative",
    },
    base="em_blocks.nets.losses:Loss",
)
