"""Objects of embeddings: voxels whose vectors lie near each other."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from em_blocks.kernels.components.block_components import find_parts

Method = Literal["mean_shift", "hdbscan"]

MOST_FITTED = {"mean_shift": 20_000, "hdbscan": 5_000}
"""Voxels that clusters are found in; all others join the nearest. HDBSCAN takes the square of them."""
CHUNK = 2**16
"""Voxels that are compared with all centres at once."""


class Separation(NamedTuple):
    """How well embeddings tell objects apart; nan where there is nothing to measure.

    Attributes
    ----------
    own_share : float
        Share of the voxels of objects that lie nearest to the mean embedding of their own object.
    spread : float
        Mean distance of a voxel from the mean of its object.
    gap : float
        Mean distance of the mean of an object from the nearest other one.
    """

    own_share: float
    spread: float
    gap: float


def cluster_embeddings(
    embedding: np.ndarray, mask: np.ndarray, *, method: Method = "mean_shift", bandwidth: float = 1.5,
    min_size: int = 1,
) -> np.ndarray:
    """Find the objects in a mask: connected voxels (26 neighbours) with embeddings of one cluster.

    Parameters
    ----------
    embedding : (c, z, y, x) float array
    mask : (z, y, x) bool array
        Foreground.
    method : {"mean_shift", "hdbscan"}
        Mean shift has a known size of clusters, `bandwidth`; HDBSCAN finds their density.
    bandwidth : float
        Radius of clusters of the mean shift, in units of the embedding: `delta_d` of the loss.
    min_size : int
        Voxels that an object has at least; smaller ones become background.

    Returns
    -------
    (z, y, x) uint32 array
        Objects from 1 in the order of their first voxels, 0 in the background.

    References
    ----------
    arXiv:1708.02551; mean shift: doi:10.1109/34.1000236; HDBSCAN: doi:10.1145/2733381.
    """
    points = np.ascontiguousarray(embedding[:, mask].T, np.float32)
    clusters = np.zeros(mask.shape, np.uint32)
    if len(points):
        if method == "mean_shift":
            centres = _mean_shift(points, bandwidth, min_size)
        else:
            centres = _hdbscan(points, min_size)
        clusters[mask] = nearest(points, centres).number + 1
    parts = find_parts(clusters)
    kept = np.concatenate([[False], parts.sizes >= min_size])
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
    return numbers[parts.numbers]


def separation(embedding: np.ndarray, labels: np.ndarray) -> Separation:
    """Measure how well embeddings tell the objects of labels apart.

    Parameters
    ----------
    embedding : (c, z, y, x) float array
    labels : (z, y, x) integer array
        Objects, 0 where there is none.
    """
    points = np.ascontiguousarray(embedding[:, labels != 0].T, np.float32)
    if not len(points):
        return Separation(np.nan, np.nan, np.nan)
    _, own, sizes = np.unique(labels[labels != 0], return_inverse=True, return_counts=True)
    means = _means(points, own, len(sizes))
    found = nearest(points, means)
    spread = np.linalg.norm(points - means[own], axis=1).mean()
    gap = np.nan
    if len(means) > 1:
        apart = np.linalg.norm(means[:, None] - means[None], axis=2)
        np.fill_diagonal(apart, np.inf)
        gap = apart.min(axis=1).mean()
    return Separation(float((found.number == own).mean()), float(spread), float(gap))


class Nearest(NamedTuple):
    """Number of the nearest centre of every point, and its distance."""

    number: np.ndarray
    distance: np.ndarray


def nearest(points: np.ndarray, centres: np.ndarray) -> Nearest:
    """Find the nearest of (c, e) centres for (n, e) points; of two alike, the first."""
    number, distance = np.empty(len(points), np.int64), np.empty(len(points), np.float32)
    for part in _chunks(len(points)):
        # |p - c|^2 less |p|^2, which all centres share.
        squared = (centres**2).sum(axis=1) - 2 * points[part] @ centres.T
        number[part] = squared.argmin(axis=1)
        distance[part] = np.linalg.norm(points[part] - centres[number[part]], axis=1)
    return Nearest(number, distance)


def _means(points: np.ndarray, cluster: np.ndarray, n: int) -> np.ndarray:
    """Return the mean of the points of every cluster, (n, e)."""
    sums = np.stack([np.bincount(cluster, column, n) for column in points.T], axis=1)
    return (sums / np.bincount(cluster, minlength=n)[:, None]).astype(np.float32)


def _mean_shift(points: np.ndarray, bandwidth: float, min_size: int) -> np.ndarray:
    """Find the centres of clusters, also of those too small to be met in a sample of all points."""
    from sklearn.cluster import MeanShift  # takes a second to import

    centres, left = np.empty((0, points.shape[1]), np.float32), points
    while len(left) >= min_size or not len(centres):
        with warnings.catch_warnings():
            # Few points lie in bins of their own; that they are seeds themselves is as well.
            warnings.filterwarnings("ignore", "Binning data failed")
            fit = MeanShift(bandwidth=bandwidth, bin_seeding=True).fit(_sample(left, "mean_shift"))
        centres = np.concatenate([centres, fit.cluster_centers_.astype(np.float32)])
        far = nearest(left, centres).distance > bandwidth
        if far.all():
            break
        left = left[far]
        if not len(left):
            break
    return centres


def _hdbscan(points: np.ndarray, min_size: int) -> np.ndarray:
    from sklearn.cluster import HDBSCAN

    sample = _sample(points, "hdbscan")
    least = max(2, round(min_size * len(sample) / len(points)))
    if len(sample) <= least:
        return sample.mean(axis=0, keepdims=True)
    fit = HDBSCAN(min_cluster_size=least, allow_single_cluster=True, copy=True).fit(sample)
    members = fit.labels_ >= 0
    if not members.any():
        return sample.mean(axis=0, keepdims=True)
    return _means(sample[members], fit.labels_[members], fit.labels_.max() + 1)


def _sample(points: np.ndarray, method: Method) -> np.ndarray:
    """Return points at even steps, so that the same points give the same clusters."""
    n = min(len(points), MOST_FITTED[method])
    return points[np.linspace(0, len(points) - 1, n).astype(np.int64)]


def _chunks(n: int) -> Iterator[slice]:
    return (slice(first, first + CHUNK) for first in range(0, n, CHUNK))
