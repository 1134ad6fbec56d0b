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
