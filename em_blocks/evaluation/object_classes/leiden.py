"""Communities of the graph of nearest neighbours, at several resolutions.

Traag, Waltman and van Eck 2019, doi:10.1038/s41598-019-41695-z.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from em_blocks.evaluation.object_classes.methods import LeidenOptions
from em_blocks.evaluation.object_classes.numbering import by_size


@dataclass(frozen=True)
class Stability:
    """Clusters by resolution, and how much runs with other seeds agree."""

    clusters: dict[float, np.ndarray]
    """Of the run with the highest modularity, as `by_size` numbers them."""
    agreement: dict[float, float]
    """Mean adjusted Rand index of all pairs of runs; 1 is the same clusters in all."""
    chosen: float
    """The resolution whose clusters are the result."""

    def document(self) -> dict:
        """Return the report on every resolution."""
        rows = [
            {"resolution": resolution, "clusters": int(found.max()),
             "agreement": self.agreement[resolution]}
            for resolution, found in self.clusters.items()
        ]
        return {"chosen": self.chosen, "resolutions": rows}


def communities(values: np.ndarray, method: LeidenOptions, seed: int) -> Stability:
    """Find communities at all resolutions, with several seeds each."""
    graph = neighbour_graph(values, method.neighbours)
    clusters, agreement = {}, {}
    for resolution in sorted(set(method.resolutions)):
        runs = [_leiden(graph, resolution, seed + run) for run in range(method.runs)]
        clusters[resolution] = max(runs, key=lambda run: run[0])[1]
        agreement[resolution] = _agreement([labels for _, labels in runs])
    chosen = method.resolution or _most_stable(clusters, agreement)
    return Stability(clusters, agreement, chosen)


def neighbour_graph(values: np.ndarray, neighbours: int) -> csr_matrix:
    """Return the symmetric graph in which objects are connected to their nearest ones.

    Parameters
    ----------
    values : array
        (objects, columns).

    Returns
    -------
    csr_matrix
        (objects, objects), 1.0 where one of two is among the nearest `neighbours` of the other.
    """
    n = len(values)
    # One more, and then not itself: among equal objects it may be found at any place, or at none.
    found = cKDTree(values).query(values, neighbours + 1, workers=-1)[1]
    others = found != np.arange(n)[:, None]
    others[:, -1] &= ~others.all(axis=1)
    to = found[others]
    graph = csr_matrix((np.ones(len(to)), (np.repeat(np.arange(n), neighbours), to)), shape=(n, n))
    return graph.maximum(graph.T).tocsr()


def in_one_piece(graph: csr_matrix) -> csr_matrix:
    """Connect the first objects of all pieces of a graph, by edges that weigh next to nothing."""
    n_pieces, pieces = connected_components(graph, directed=False)
    if n_pieces == 1:
        return graph
    first = np.unique(pieces, return_index=True)[1]
    weak = np.full(n_pieces - 1, 1e-6)
    edges = csr_matrix((weak, (first[:-1], first[1:])), shape=graph.shape)
    return (graph + edges + edges.T).tocsr()


def _leiden(graph: csr_matrix, resolution: float, seed: int) -> tuple[float, np.ndarray]:
    """Return the modularity of a run, and its clusters."""
    from graspologic_native import leiden_csr

    quality, found = leiden_csr(
        graph.indptr.astype(np.int64), graph.indices.astype(np.int32), graph.data, graph.shape[0],
        resolution=resolution, seed=seed,
    )
    labels = np.empty(graph.shape[0], np.int64)
    labels[np.fromiter(found.keys(), np.int64, len(found))] = np.fromiter(
        found.values(), np.int64, len(found)
    )
    return quality, by_size(labels)


def _agreement(runs: list[np.ndarray]) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(np.mean([adjusted_rand_score(a, b) for a, b in itertools.combinations(runs, 2)]))


def _most_stable(clusters: dict[float, np.ndarray], agreement: dict[float, float]) -> float:
    # One cluster of everything is always the same, and says nothing.
    several = [r for r, found in clusters.items() if found.max() > 1] or list(clusters)
    return max(several, key=lambda resolution: (round(agreement[resolution], 3), -resolution))
