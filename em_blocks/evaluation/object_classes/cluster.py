"""From tables to clusters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from em_blocks.errors import ConfigError
from em_blocks.evaluation.object_classes.clustering import check_size, cluster
from em_blocks.evaluation.object_classes.config import ClusterObjects, Feature
from em_blocks.evaluation.object_classes.examples import Examples, read_examples
from em_blocks.evaluation.object_classes.leiden import Stability
from em_blocks.evaluation.object_classes.scaling import scaled, without_missing
from em_blocks.evaluation.object_classes.scores import compare, silhouette
from em_blocks.evaluation.object_classes.tables import Chosen, Joined, read_joined

MOST_FOR_TSNE = 10_000
"""Objects: t-SNE takes minutes for more."""


@dataclass(frozen=True)
class Clustered:
    """Objects, their clusters and how good these are."""

    task: ClusterObjects
    ids: np.ndarray
    """uint64, ascending."""
    values: np.ndarray
    """(objects, columns): what objects were compared by."""
    names: list[str]
    """Columns of features."""
    clusters: np.ndarray
    """int32, 1 is the largest, 0 is noise."""
    stability: Stability | None
    examples: Examples | None
    dropped: np.ndarray
    """Ids that were left out because of missing values."""
    n_unmatched: int
    """Ids that were left out because a table lacks them."""

    @property
    def sizes(self) -> dict[str, int]:
        """Objects by cluster, noise (0) first if there is any."""
        found, counts = np.unique(self.clusters, return_counts=True)
        return {str(cluster): int(n) for cluster, n in zip(found, counts, strict=True)}

    def document(self) -> dict:
        """Return the report: sizes and scores first."""
        report: dict = {"sizes": self.sizes}
        if self.examples is not None:
            rows = self.examples.rows
            report |= compare(self.clusters[rows], self.examples.names) | {"n_classified": len(rows)}
        report["silhouette"] = silhouette(self.values, self.clusters, self.task.seed)
        if self.stability is not None:
            report["stability"] = self.stability.document()
        return report | {
            "objects": len(self.ids), "columns": self.names,
            "dropped": {"missing_values": len(self.dropped), "missing_ids": self.n_unmatched},
            "config": self.task.model_dump(mode="json"),
        }


def cluster_objects(task: ClusterObjects) -> Clustered:
    """Read tables, and find clusters of their objects.

    Raises
    ------
    ConfigError
        If tables, features, classes or numbers do not fit, or the method does not take them.
    """
    joined = read_joined(
        task.tables, [feature.column for feature in task.features],
        drop_unmatched=task.missing_ids == "drop",
    )
    names, raw = flat(joined)
    raw, kept = without_missing(raw, names, joined.ids, task.missing)
    ids, dropped = joined.ids[kept], joined.ids[~kept]
    check_size(task.method, len(ids))
    _check_view(task, len(ids))
    examples = None if task.classes is None else read_examples(task.classes, ids, dropped)
    values = _components(_weighted(task.features, joined.chosen, raw), task.components)
    clusters, stability = cluster(values, task.method, task.seed)
    return Clustered(
        task, ids, values, names, clusters, stability, examples, dropped, joined.n_unmatched
    )


def flat(joined: Joined) -> tuple[list[str], np.ndarray]:
    """Return the names and values, (objects, columns), of all columns that were chosen."""
    names = [name for chosen in joined.chosen for name in chosen.names]
    return names, np.concatenate([chosen.values for chosen in joined.chosen], axis=1)


def _weighted(
    features: Iterable[Feature], chosen: Iterable[Chosen], raw: np.ndarray
) -> np.ndarray:
    found, begin = [], 0
    for feature, columns in zip(features, chosen, strict=True):
        end = begin + len(columns.names)
        weights = _weights(feature, columns.names)
        found.append(scaled(raw[:, begin:end], feature.scaling, columns.names) * weights)
        begin = end
    return np.concatenate(found, axis=1)


def _weights(feature: Feature, names: list[str]) -> np.ndarray:
    weights = np.atleast_1d(feature.weight)
    if isinstance(feature.weight, tuple) and len(weights) != len(names):
        raise ConfigError(
            f"The weight of {feature.column!r} has {len(weights)} numbers, but it stands for "
            f"{len(names)} columns ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}). Give "
            "one number for all of them, or a list with one for each."
        )
    return weights


def _components(values: np.ndarray, n: int | None) -> np.ndarray:
    if n is None:
        return values
    if n > min(values.shape):
        raise ConfigError(
            f"'components' is {n}, but {values.shape[0]} objects with {values.shape[1]} columns have at "
            f"most {min(values.shape)} principal components. Use fewer, or leave the key out."
        )
    return principal(values, n)


def principal(values: np.ndarray, n: int) -> np.ndarray:
    """Return the first `n` principal components, (objects, n)."""
    from sklearn.decomposition import PCA

    # With an exact solver the same objects give the same components, to the sign that it fixes.
    return PCA(n, svd_solver="covariance_eigh").fit_transform(values)


def _check_view(task: ClusterObjects, n: int) -> None:
    if task.view == "tsne" and n > MOST_FOR_TSNE:
        raise ConfigError(
            f"\"view\": \"tsne\" takes at most {MOST_FOR_TSNE} objects, and the tables have {n}: it "
            "would take longer than everything else. Use \"view\": \"pca\"."
        )
