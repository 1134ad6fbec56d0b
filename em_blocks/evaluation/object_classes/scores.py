"""Clusters compared with known classes."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix

MOST_FOR_SILHOUETTE = 10_000
"""Objects: the silhouette takes the distances of all pairs."""


def compare(clusters: np.ndarray, classes: np.ndarray) -> dict:
    """Score clusters by classes.

    Parameters
    ----------
    clusters : array
        int, 0 is noise.
    classes : array
        The class of each object, as text.

    Returns
    -------
    dict
        "accuracy": the share of objects whose cluster is matched to their class, at most one cluster
        to a class, so that it is highest (Kuhn 1955); noise matches none. "nmi": normalized mutual
        information (arithmetic mean), "ari": adjusted Rand index, both with noise as one cluster.
        "classes": by class its number of objects, its cluster (None without), true and false
        positives and false negatives, precision, recall.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    names, true = np.unique(classes, return_inverse=True)
    table = _contingency(clusters, true, len(names))
    noted = np.flatnonzero(np.arange(len(table)) > 0)
    rows, columns = linear_sum_assignment(table[noted], maximize=True)
    matched = dict(zip(columns.tolist(), noted[rows].tolist(), strict=True))
    right = sum(table[cluster, number] for number, cluster in matched.items())
    return {
        "accuracy": float(right / len(clusters)),
        "nmi": float(normalized_mutual_info_score(true, clusters)),
        "ari": float(adjusted_rand_score(true, clusters)),
        "classes": {
            str(name): _of_class(table, number, matched.get(number))
            for number, name in enumerate(names)
        },
    }


def _contingency(clusters: np.ndarray, true: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the number of objects by cluster (0 is noise) and class."""
    shape = (int(clusters.max()) + 1, n_classes)
    return coo_matrix((np.ones(len(true), np.int64), (clusters, true)), shape=shape).toarray()


def _of_class(table: np.ndarray, number: int, cluster: int | None) -> dict:
    n = int(table[:, number].sum())
    hits = 0 if cluster is None else int(table[cluster, number])
    found = 0 if cluster is None else int(table[cluster].sum())
    return {
        "objects": n, "cluster": cluster, "true_positives": hits, "false_positives": found - hits,
        "false_negatives": n - hits, "precision": hits / found if found else None, "recall": hits / n,
    }


def silhouette(values: np.ndarray, clusters: np.ndarray, seed: int) -> float | None:
    """Return the mean silhouette of objects in clusters; None where it is not defined.

    Of more than `MOST_FOR_SILHOUETTE` objects a random part is taken. Rousseeuw 1987,
    doi:10.1016/0377-0427(87)90125-7.
    """
    from sklearn.metrics import silhouette_score

    rows = np.flatnonzero(clusters > 0)
    if len(rows) > MOST_FOR_SILHOUETTE:
        chosen = np.random.default_rng(seed).choice(len(rows), MOST_FOR_SILHOUETTE, replace=False)
        rows = rows[np.sort(chosen)]
    n_clusters = len(np.unique(clusters[rows]))
    if not 2 <= n_clusters < len(rows):
        return None
    return float(silhouette_score(values[rows], clusters[rows]))
