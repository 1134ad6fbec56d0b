"""Classification by the nearest of two prototypes, which a network keeps with its weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

MOMENTUM = 0.1
"""Share of a batch in the running sums: one with little foreground must not decide them."""
LEAST = 1e-12  # a weight of 0 must not divide: before any training there are no prototypes


class Nearest(NamedTuple):
    """What prototypes are made of: an embedding, and the head that says what is foreground."""

    channels: int
    prior: str


class Prototypes(nn.Module):
    """Logits of the foreground: the distance to the background's prototype less that to its own.

    A prototype is the mean embedding of the voxels of its class, weighted by the probability that
    another head gives them. Means of a tile would differ from tile to tile, and a tile without
    foreground has none. So the sums behind the means run over the batches of a training, as those of a
    batch normalisation do, and are kept as buffers: predictions read them alone. In training the batch
    is part of the sums, which passes the gradient on to the embedding and to the other head.

    Parameters
    ----------
    channels : int
        Of the embedding.

    References
    ----------
    Nearest prototypes: arXiv:1703.05175.
    """

    sums: Tensor
    weights: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("sums", torch.zeros(2, channels))
        self.register_buffer("weights", torch.zeros(2))

    def forward(self, embedding: Tensor, prior: Tensor | None = None) -> Tensor:
        """Compute logits, of which the sigmoid is the probability of the foreground.

        Parameters
        ----------
        embedding : (n, channels, z, y, x) tensor
        prior : (n, 1, z, y, x) tensor, optional
            Logits of the foreground by another head. Read in training only.

        Returns
        -------
        (n, 1, z, y, x) float32 tensor
        """
        values, sums, weights = embedding.float(), self.sums, self.weights
        # A snapshot predicts during a training and must not change it.
        if self.training and prior is not None and torch.is_grad_enabled():
            sums, weights = self._with_batch(values, prior.float())
        means = sums / weights.clamp(min=LEAST)[:, None]
        background, foreground = (
            torch.linalg.vector_norm(values - mean[:, None, None, None], dim=1, keepdim=True)
            for mean in means
        )
        return background - foreground

    def _with_batch(self, values: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """Add a batch to the running sums and weights; return both, with the gradient of the batch."""
        voxels = (0, 2, 3, 4)
        shares = torch.sigmoid(-prior), torch.sigmoid(prior)
        sums = self.sums.lerp(torch.stack([(values * s).mean(voxels) for s in shares]), MOMENTUM)
        weights = self.weights.lerp(torch.stack([s.mean() for s in shares]), MOMENTUM)
        if bool(torch.isfinite(sums).all() & torch.isfinite(weights).all()):  # else the step is skipped
            self.sums, self.weights = sums.detach(), weights.detach()
        return sums, weights
