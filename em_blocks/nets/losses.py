"""Losses of network heads, all in float32 whatever the network computes in."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def balanced_bce(logits: Tensor, target: Tensor, mask: Tensor, *, rarest: float = 0.05) -> Tensor:
    """Binary cross entropy in which both classes of a channel weigh the same.

    Parameters
    ----------
    logits, target, mask : (n, c, z, y, x) tensors
        Network output; 0 or 1; 1 where the target counts and 0 elsewhere.
    rarest : float
        A class rarer than this fraction is weighted as if it had it, so that
        a few voxels of noise cannot dominate a batch.

    Returns
    -------
    scalar tensor
        Mean over the channels that have any unmasked voxel; 0 (with gradient
        0) if none has.
    """
    logits, target, mask = logits.float(), target.float(), mask.float()
    voxels = (0, 2, 3, 4)
    count = mask.sum(voxels)
    positive = ((target * mask).sum(voxels) / count.clamp(min=1)).clamp(rarest, 1 - rarest)
    positive = positive.reshape(1, -1, 1, 1, 1)
    weight = mask * (target * 0.5 / positive + (1 - target) * 0.5 / (1 - positive))
    loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    per_channel = (loss * weight).sum(voxels) / weight.sum(voxels).clamp(min=1e-6)
    return per_channel.sum() / (count > 0).sum().clamp(min=1)


def masked_mse(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of sigmoid outputs where the mask is 1.

    Parameters
    ----------
    logits, target : (n, c, z, y, x) tensors
        Network output before the sigmoid; values in 0..1.
    mask : (n, z, y, x) tensor
        1 where the target counts and 0 elsewhere.

    Returns
    -------
    scalar tensor
        0 (with gradient 0) if nothing counts.
    """
    mask = mask.float()
    error = (torch.sigmoid(logits.float()) - target.float()).square().mean(dim=1)
    return (error * mask).sum() / mask.sum().clamp(min=1)


def indicator_loss(
    logits: Tensor,
    target: Tensor,
    mask: Tensor,
    *,
    kind: str = "cross_entropy",
    rarest: float = 0.0007,
    balance: float = 1.0,
    gamma: float = 2.0,
) -> Tensor:
    """Loss of a rare class, whose few voxels may weigh as much as all the others.

    Parameters
    ----------
    logits, target, mask : (n, 1, z, y, x) tensors
        Network output before the sigmoid; 0 or 1; 1 where the target counts and 0 elsewhere.
    kind : {"cross_entropy", "mse", "focal"}
        "mse" is that of the sigmoid; "focal" is cross entropy times (1 - p of the true class) **
        gamma.
    rarest : float
        A class of fraction f has weight 1 / (2 f); f is clipped to `rarest` ... 1 - `rarest`.
    balance : float
        Exponent of these weights: 1 for equal classes, 0 for equal voxels.

    Returns
    -------
    scalar tensor
        Mean over the unmasked voxels; 0 (with gradient 0) if there are none.

    References
    ----------
    Balancing: doi:10.1038/s41592-021-01183-7; focal loss: doi:10.1109/ICCV.2017.324.
    """
    logits, target, mask = logits.float(), target.float(), mask.float()
    count = mask.sum().clamp(min=1)
    positive = ((target * mask).sum() / count).clamp(rarest, 1 - rarest)
    weight = torch.where(target > 0, 0.5 / positive, 0.5 / (1 - positive)) ** balance
    if kind == "mse":
        error = (torch.sigmoid(logits) - target).square()
    else:
        error = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        if kind == "focal":
            # The power as an exponential: where the network is sure, 0 ** gamma has no gradient.
            error = error * torch.exp(gamma * functional.logsigmoid(logits * (1 - 2 * target)))
    return (error * weight * mask).sum() / count


def masked_vector_mse(vectors: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of the components of vectors where the mask is 1.

    Parameters
    ----------
    vectors, target : (n, 3, z, y, x) tensors
    mask : (n, z, y, x) tensor

    Returns
    -------
    scalar tensor
        0 (with gradient 0) if nothing counts.
    """
    mask = mask.float()
    error = (vectors.float() - target.float()).square().mean(dim=1)
    return (error * mask).sum() / mask.sum().clamp(min=1)
