"""Segments from a merge forest."""

from __future__ import annotations

import numpy as np
from numba import njit

from em_blocks.kernels.segmentation.pair_table import find_root


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
    return _roots(n, a[keep].astype(np.int64), b[keep].astype(np.int64))


@njit(cache=True, nogil=True)
def _roots(n, a, b):
    parent = np.arange(n)
    for i in range(len(a)):
        x, y = find_root(parent, a[i]), find_root(parent, b[i])
        parent[max(x, y)] = min(x, y)
    for i in range(n):
        parent[i] = parent[parent[i]]  # no parent comes after its child
    return parent


def merge_paths(
    n: int, a: np.ndarray, b: np.ndarray, score: np.ndarray, u: np.ndarray, v: np.ndarray, *,
    unconnected: float,
) -> np.ndarray:
    """Score of the merge that first brings both nodes of a pair into one cluster.

    Parameters
    ----------
    n : int
        Number of nodes.
    a, b, score : (m,) arrays
        Merges in the order in which they happened; `a` and `b` are nodes of the two clusters.
    u, v : (k,) int arrays
        Pairs of nodes.
    unconnected : float
        For pairs that never meet.

    Returns
    -------
    (k,) float64 array
    """
    up, step = _merge_tree(n, a.astype(np.int64), b.astype(np.int64))
    return _meet(up, step, np.append(score, unconnected), u.astype(np.int64), v.astype(np.int64))


@njit(cache=True)
def _merge_tree(n, a, b):
    """For every root that was absorbed: by which other root, and in which step; else itself, m.

    The smaller set is absorbed, so paths to the last root have at most log(n) steps, and the
    steps along a path increase.
    """
    up, size = np.arange(n), np.ones(n, np.int64)
    step = np.full(n, len(a), np.int64)
    for i in range(len(a)):
        x, y = a[i], b[i]
        while up[x] != x:
            x = up[x]
        while up[y] != y:
            y = up[y]
        if x == y:
            continue
        if size[x] < size[y]:
            x, y = y, x
        up[y], step[y] = x, i
        size[x] += size[y]
    return up, step


@njit(cache=True)
def _meet(up, step, score, u, v):
    result = np.empty(len(u))
    for i in range(len(u)):
        x, y, last = u[i], v[i], -1
        while x != y and min(step[x], step[y]) < len(score) - 1:
            if step[x] <= step[y]:
                last, x = max(last, step[x]), up[x]
            else:
                last, y = max(last, step[y]), up[y]
        result[i] = score[last] if x == y else score[-1]
    return result
