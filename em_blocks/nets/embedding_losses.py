"""Losses of embeddings: vectors of voxels that are alike within an object and differ between objects."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from em_blocks.nets.losses import Activation, Loss


class _Clusters(NamedTuple):
    """Voxels of one sample and the clusters they belong to.

    Attributes
    ----------
    values : (v, e) tensor
        Embeddings.
    cluster : (v,) int64 tensor
        Number of the cluster of every voxel, from 0.
    sizes : (c,) tensor
        Voxels of every cluster.
    """

    values: Tensor
    cluster: Tensor
    sizes: Tensor

    def means(self, values: Tensor) -> Tensor:
        """Return the mean of (v, ...) values over each cluster, (c, ...)."""
        zeros = values.new_zeros(len(self.sizes), *values.shape[1:])
        sums = zeros.index_add(0, self.cluster, values)
        return sums / self.sizes.reshape(-1, *[1] * (values.ndim - 1))


class Discriminative(Loss):
    """Pulls voxels to the mean embedding of their cluster, and the means of clusters apart.

    The mean over the clusters of the mean over their voxels of max(0, d - delta_v)^2, where d is the
    distance from the mean of the cluster; plus the mean over the pairs of clusters of
    max(0, 2 delta_d - D)^2, where D is the distance of their means; plus the mean length of the means.
    `target` is (n, z, y, x) of ids, 0 in the background. The loss is the mean over the samples of a
    batch that have any cluster.

    References
    ----------
    De Brabandere et al. 2017, arXiv:1708.02551.
    """

    kind: Literal["discriminative"] = "discriminative"
    clusters: Literal["instances", "instances_and_background", "foreground_and_background"] = Field(
        "instances",
        description="Which voxels form clusters: every instance; the background besides; or all "
        "instances together and the background.",
    )
    delta_v: NonNegativeFloat = Field(
        0.5, description="Distance from the mean of its cluster within which a voxel is not pulled."
    )
    delta_d: PositiveFloat = Field(
        1.5, description="Half the distance of two means from which on they are not pushed apart. "
        "Clusters can be told apart for certain where it is more than twice `delta_v`.",
    )
    alpha: NonNegativeFloat = Field(1.0, description="Weight of the pull to the means.")
    beta: NonNegativeFloat = Field(1.0, description="Weight of the push between means.")
    gamma: NonNegativeFloat = Field(1e-4, description="Weight of the length of the means.")

    def __call__(
        self, logits: Tensor, target: Tensor, mask: Tensor, *, activate: Activation = torch.sigmoid
    ) -> Tensor:
        values = activate(logits.float()).flatten(2)
        ids, known = target.reshape(len(values), -1), mask.reshape(len(values), -1) > 0
        samples = [self._clusters(*sample) for sample in zip(values, ids, known, strict=True)]
        losses = [self._of_sample(sample) for sample in samples if len(sample.sizes)]
        return torch.stack(losses).mean() if losses else 0 * values.sum()

    def _clusters(self, values: Tensor, ids: Tensor, known: Tensor) -> _Clusters:
        if self.clusters == "instances":
            known = known & (ids != 0)
        elif self.clusters == "foreground_and_background":
            ids = (ids != 0).long()
        _, cluster, sizes = torch.unique(ids[known], return_inverse=True, return_counts=True)
        return _Clusters(values[:, known].T, cluster, sizes)

    def _of_sample(self, sample: _Clusters) -> Tensor:
        means = sample.means(sample.values)
        distances = torch.linalg.vector_norm(sample.values - means[sample.cluster], dim=1)
        pull = sample.means((distances - self.delta_v).relu().square()).mean()
        length = torch.linalg.vector_norm(means, dim=1).mean()
        loss = self.alpha * pull + self.gamma * length
        if len(means) > 1:
            apart = torch.nn.functional.pdist(means)  # every pair once, and the mean over pairs
            loss = loss + self.beta * (2 * self.delta_d - apart).relu().square().mean()
        return loss
