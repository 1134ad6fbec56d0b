"""Segments from a merge forest."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def cut(n: int, a: np.ndarray, b: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Clusters of nodes that the kept edges of a forest connect.

    Parameters
    ----------
    n : int
        Number of nodes.
    a, b : (m,) int arrays
        Edges.
    keep : (m,) bool array

    Returns
    -------
    (n,) int64 array
        Smallest node of the cluster of every node.
    """
    a, b = a[keep].astype(np.int32), b[keep].astype(np.int32)
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    # Components are numbered in the order of their first nodes by np.unique's first index.
    first = np.full(component.max(initial=-1) + 1, n, np.int64)
    np.minimum.at(first, component, np.arange(n))
    return first[component]
