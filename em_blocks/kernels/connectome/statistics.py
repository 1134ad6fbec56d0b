"""Figures that describe a connectome as a network."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from em_blocks.kernels.connectome.graph import Connectome

# Clustering looks at all pairs of partners of every neuron. A sparse product does some 10^8 of
# them per second, so this bound is a minute; few hubs of a whole brain would take hours.
_MOST_PAIRS = 5e9
_PAIRS_AT_ONCE = 2e7


def network_statistics(graph: Connectome) -> dict[str, int | float | None]:
    """Size, degrees, reciprocity, components and clustering of a connectome.

    Returns
    -------
    dict
        ``neurons``, ``connections``, ``synapses``, ``self_connections``;
        ``mean_in_degree`` (= out), ``max_in_degree``, ``max_out_degree`` (partners, without
        itself) and ``max_degree_centrality`` (most partners of any direction, as a fraction of
        all others); ``mean_weight``, ``max_weight`` (synapses per connection);
        ``reciprocity``: fraction of connections that are answered by one in the other direction;
        ``components``, ``largest_component``: neurons that are connected, whatever the direction;
        ``largest_strong_component``: those that all reach each other along the direction;
        ``clustering``: mean over neurons of the fraction of pairs of their partners that are
        connected, whatever the direction (doi:10.1038/30918); None if it would take too long;
        ``independent_cycles``: connections, whatever the direction, beyond those of a tree.
        Connections of a neuron to itself count only where it is said.
    """
    ids = graph.nodes
    is_self = graph.pre == graph.post
    directed = _binary(graph.select(~is_self), ids)
    both = _binary_union(directed)
    n, edges = len(ids), directed.nnz
    components, label = connected_components(both, directed=False)
    _, strong = connected_components(directed, connection="strong")
    degree = both.sum(axis=1)
    return {
        "neurons": n,
        "connections": len(graph),
        "synapses": int(graph.weight.sum()),
        "self_connections": int(is_self.sum()),
        "mean_in_degree": edges / n if n else 0.0,
        "max_in_degree": _largest(directed.sum(axis=0)),
        "max_out_degree": _largest(directed.sum(axis=1)),
        "max_degree_centrality": _largest(degree) / (n - 1) if n > 1 else 0.0,
        "mean_weight": float(graph.weight.mean()) if len(graph) else 0.0,
        "max_weight": _largest(graph.weight),
        "reciprocity": directed.multiply(directed.T).nnz / edges if edges else 0.0,
        "components": int(components) if n else 0,
        "largest_component": _largest(np.bincount(label)) if n else 0,
        "largest_strong_component": _largest(np.bincount(strong)) if n else 0,
        "clustering": mean_clustering(both),
        "independent_cycles": both.nnz // 2 - n + int(components) if n else 0,
    }


def mean_clustering(adjacency: scipy.sparse.csr_array) -> float | None:
    """Mean fraction of pairs of neighbours that are neighbours themselves.

    Parameters
    ----------
    adjacency : (n, n) sparse array
        1 where nodes are neighbours; symmetric, 0 on the diagonal. A node with less than two
        neighbours counts as 0.

    Returns
    -------
    float or None
        None if there are more than 5 * 10^9 pairs to look at.
    """
    n = adjacency.shape[0]
    if not n:
        return 0.0
    degree = adjacency.sum(axis=1)
    # Row i of the product sums the degrees of the neighbours of i.
    pairs = np.cumsum(adjacency @ degree)
    if pairs[-1] > _MOST_PAIRS:
        return None
    # Rows in parts: the whole product holds all paths of length two.
    parts = np.searchsorted(pairs, np.arange(_PAIRS_AT_ONCE, pairs[-1], _PAIRS_AT_ONCE))
    closed = np.concatenate([
        (rows @ adjacency).multiply(rows).sum(axis=1)
        for rows in (adjacency[a:b] for a, b in zip([0, *parts], [*parts, n], strict=True))
    ])
    possible = degree * (degree - 1)
    return float(np.divide(closed, possible, out=np.zeros(n), where=possible > 0).mean())


def _binary(graph: Connectome, ids: np.ndarray) -> scipy.sparse.csr_array:
    places = np.searchsorted(ids, graph.pre), np.searchsorted(ids, graph.post)
    return scipy.sparse.csr_array((np.ones(len(graph), np.int64), places), shape=(len(ids),) * 2)


def _binary_union(directed: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """1 where there is a connection in either direction."""
    both = (directed + directed.T).tocsr()
    both.data[:] = 1
    return both


def _largest(values: np.ndarray) -> int:
    return int(values.max()) if values.size else 0
