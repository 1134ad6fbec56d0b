"""Clusters by the methods of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from em_blocks.errors import ConfigError
from em_blocks.evaluation.object_classes import leiden
from em_blocks.evaluation.object_classes.methods import (
    AffinityOptions,
    AgglomerativeOptions,
    DbscanOptions,
    HdbscanOptions,
    KMeansOptions,
    LeidenOptions,
    Method,
    MiniBatchOptions,
    SpectralOptions,
)
from em_blocks.evaluation.object_classes.numbering import by_size

_STARTS = 10
"""Random starts of k-means, of which the best is kept: one may end in a poor optimum."""


def check_size(method: Method, n: int) -> None:
    """Raise `ConfigError` unless a method can take `n` objects, and they suffice for it."""
    if n > method.most:
        raise ConfigError(
            f"{method.name} takes at most {method.most} objects, because {method.costs}, and the tables "
            f"have {n}. Use {method.instead}, or fewer objects."
        )
    least = max(2, getattr(method, "clusters", 2))
    if n < least:
        raise ConfigError(
            f"The tables have {n} objects, but {method.name} needs at least {least} as it is set. Use "
            "fewer clusters, or more objects."
        )
    neighbours = getattr(method, "neighbours", 0)
    if neighbours >= n:
        raise ConfigError(
            f"method.neighbours is {neighbours}, but each of {n} objects has only {n - 1} others. Use "
            "fewer neighbours."
        )


def cluster(
    values: np.ndarray, method: Method, seed: int
) -> tuple[np.ndarray, leiden.Stability | None]:
    """Return the cluster of every object: 1 is the largest; 0 is noise. Objects keep their order.

    Parameters
    ----------
    values : array
        (objects, columns), scaled and weighted.

    Returns
    -------
    clusters, stability
        int32; what runs at several resolutions gave, of leiden only.

    Raises
    ------
    ConfigError
        If the method finds no answer.
    """
    if isinstance(method, LeidenOptions):
        found = leiden.communities(values, method, seed)
        return found.clusters[found.chosen], found
    return by_size(_FITS[type(method)](values, method, seed)), None


def _kmeans(values: np.ndarray, method: KMeansOptions, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    return KMeans(method.clusters, n_init=_STARTS, random_state=seed).fit_predict(values)


def _mini_batch(values: np.ndarray, method: MiniBatchOptions, seed: int) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    return MiniBatchKMeans(
        method.clusters, batch_size=method.batch_size, n_init=_STARTS, random_state=seed
    ).fit_predict(values)


def _spectral(values: np.ndarray, method: SpectralOptions, seed: int) -> np.ndarray:
    from sklearn.cluster import SpectralClustering

    # A graph in pieces has clusters that no cut divides: scikit-learn would warn and go on. Weak
    # edges between all pieces make it whole, and its first eigenvectors are still those of the pieces.
    graph = leiden.neighbour_graph(values, method.neighbours)
    return SpectralClustering(
        method.clusters, affinity="precomputed", random_state=seed
    ).fit_predict(leiden.in_one_piece(graph))


def _agglomerative(values: np.ndarray, method: AgglomerativeOptions, seed: int) -> np.ndarray:
    from sklearn.cluster import AgglomerativeClustering

    return AgglomerativeClustering(method.clusters, linkage=method.linkage).fit_predict(values)


def _dbscan(values: np.ndarray, method: DbscanOptions, seed: int) -> np.ndarray:
    from sklearn.cluster import DBSCAN

    return DBSCAN(eps=method.eps, min_samples=method.min_samples).fit_predict(values)


def _hdbscan(values: np.ndarray, method: HdbscanOptions, seed: int) -> np.ndarray:
    from sklearn.cluster import HDBSCAN

    needed = max(method.min_cluster_size, method.min_samples or 0)
    if needed > len(values):
        raise ConfigError(
            f"hdbscan is set to clusters of {needed} objects (min_cluster_size, min_samples), but the "
            f"tables have {len(values)}. Use smaller numbers."
        )
    return HDBSCAN(
        min_cluster_size=method.min_cluster_size, min_samples=method.min_samples, copy=True
    ).fit_predict(values)


def _affinity(values: np.ndarray, method: AffinityOptions, seed: int) -> np.ndarray:
    import warnings

    from sklearn.cluster import AffinityPropagation
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return AffinityPropagation(
                damping=method.damping, preference=method.preference, max_iter=1000,
                random_state=seed,
            ).fit_predict(values)
        except ConvergenceWarning as error:
            raise ConfigError(
                f"affinity_propagation did not converge in 1000 steps with damping {method.damping:g}, "
                "and its clusters would mean nothing. Use a damping nearer to 1, such as 0.9."
            ) from error


_FITS: dict[type, Callable[[np.ndarray, Any, int], np.ndarray]] = {
    KMeansOptions: _kmeans, MiniBatchOptions: _mini_batch, SpectralOptions: _spectral,
    AgglomerativeOptions: _agglomerative, DbscanOptions: _dbscan, HdbscanOptions: _hdbscan,
    AffinityOptions: _affinity,
}
