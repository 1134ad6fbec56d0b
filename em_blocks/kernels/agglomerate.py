"""Agglomeration of a region graph into a merge forest, whole or part by part."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from em_blocks.kernels.pairs import pair_key, place


class Merges(NamedTuple):
    """Merge forest: at what affinity clusters became one, in the order in which they did.

    A cluster is named by its smallest node. Cutting the forest at an affinity (leaving out
    weaker merges) gives the agglomeration that stops there.
    """

    a: np.ndarray  # (n,) int64, a < b
    b: np.ndarray
    affinity: np.ndarray  # (n,) float64, 0..1


class Graph(NamedTuple):
    """Weighted edges, u != v, each pair once.

    Attributes
    ----------
    u, v : (n,) int64 array
        Dense nodes.
    total : (n,) int64 array
        Sum of affinities.
    weight : (n,) int64 array
        Sum of what affinity 1 would have given; the score is total / weight.
    rank : (n,) int64 array
        All different: of two edges of the same score, that of lower rank is taken first.
    """

    u: np.ndarray
    v: np.ndarray
    total: np.ndarray
    weight: np.ndarray
    rank: np.ndarray


def agglomerate(
    n: int, graph: Graph, *, lowest: float, average: bool = True, open_nodes: np.ndarray | None = None
) -> tuple[Merges, Graph]:
    """Merge along the strongest edge again and again, as far as is certain.

    The edge between two clusters has the mean (`average`) or the largest affinity of the edges
    between their nodes. Where some nodes have further edges that are not in this graph
    (`open_nodes`), exactly those merges are done that the agglomeration of the whole graph does
    as well: under both rules a merge never strengthens an edge beyond the merged one, so two
    nodes that are each other's best may merge at any time (reciprocal nearest neighbours), and a
    node whose best edge is not certain waits.

    Parameters
    ----------
    n : int
        Number of nodes.
    lowest : float
        Weaker edges do not merge.
    open_nodes : (n,) bool array, optional

    Returns
    -------
    merges : Merges
    rest : Graph
        What is left: edges between clusters, each named by its smallest node.

    References
    ----------
    Murtagh 1983, doi:10.1093/comjnl/26.4.354 (reciprocal nearest neighbours); Bailoni et al. 2022,
    "GASP", doi:10.1109/CVPR52688.2022.01136 (average linkage on signed graphs).
    """
    waiting = np.zeros(n, bool) if open_nodes is None else open_nodes.astype(bool)
    u, v = graph.u.astype(np.int32), graph.v.astype(np.int32)
    total, weight = graph.total.astype(np.int64), graph.weight.astype(np.int64)
    rank = graph.rank.astype(np.int64)
    alive = np.ones(len(u), bool)
    a, b, affinity, name = _agglomerate(n, u, v, total, weight, rank, alive, waiting, lowest, average)
    u, v = name[u[alive]].astype(np.int64), name[v[alive]].astype(np.int64)
    rest = Graph(
        np.minimum(u, v), np.maximum(u, v), total[alive], weight[alive], rank[alive]
    )
    return Merges(a, b, affinity), rest


@njit(cache=True, inline="always")
def _before(score, rank, other_score, other_rank):
    return score > other_score or (score == other_score and rank < other_rank)


@njit(cache=True)
def _up(scores, ranks, edges, i):
    score, rank, edge = scores[i], ranks[i], edges[i]
    while i > 0:
        parent = (i - 1) >> 2
        if not _before(score, rank, scores[parent], ranks[parent]):
            break
        scores[i], ranks[i], edges[i] = scores[parent], ranks[parent], edges[parent]
        i = parent
    scores[i], ranks[i], edges[i] = score, rank, edge


@njit(cache=True)
def _down(scores, ranks, edges, n, i):
    score, rank, edge = scores[i], ranks[i], edges[i]
    while 4 * i + 1 < n:
        best = 4 * i + 1
        for child in range(best + 1, min(best + 4, n)):
            if _before(scores[child], ranks[child], scores[best], ranks[best]):
                best = child
        if not _before(scores[best], ranks[best], score, rank):
            break
        scores[i], ranks[i], edges[i] = scores[best], ranks[best], edges[best]
        i = best
    scores[i], ranks[i], edges[i] = score, rank, edge


@njit(cache=True)
def _index(u, v, alive, length):
    """Hash table from pairs of clusters to edges."""
    keys, values, used = np.zeros(length, np.uint64), np.empty(length, np.int32), 0
    for e in range(len(u)):
        if alive[e]:
            key = pair_key(u[e], v[e])
            here = place(keys, key)
            keys[here], values[here] = key, e
            used += 1
    return keys, values, used


@njit(cache=True)
def _append(following, head, tail, node, half):
    """Add a half-edge to the list of a node."""
    following[half] = -1
    if head[node] < 0:
        head[node] = half
    else:
        following[tail[node]] = half
    tail[node] = half


@njit(cache=True, nogil=True)
def _agglomerate(n, u, v, total, weight, rank, alive, waiting, lowest, average):
    """Changes u, v, total, weight, rank and alive to what is left.

    Half-edge 2 e + s is edge e as seen from its end s. When two clusters merge, the edges of the
    one that has fewer are carried over to the other, so that every edge is carried over at most
    log(n) times.
    """
    n_edges = len(u)
    length = 16
    while length < 3 * n_edges:
        length *= 2
    keys, values, used = _index(u, v, alive, length)
    following = np.full(2 * n_edges, -1, np.int32)
    head, tail = np.full(n, -1, np.int32), np.full(n, -1, np.int32)
    degree = np.zeros(n, np.int32)
    scores, ranks = np.empty(n_edges + 16), np.empty(n_edges + 16, np.int64)
    edges, size = np.empty(n_edges + 16, np.int32), 0
    for e in range(n_edges):
        for end in (u[e], v[e]):
            _append(following, head, tail, end, 2 * e + (end == v[e]))
            degree[end] += 1
        score = total[e] / weight[e]
        if score >= lowest:
            scores[size], ranks[size], edges[size] = score, rank[e], e
            size += 1
    for i in range((size - 2) // 4, -1, -1):
        _down(scores, ranks, edges, size, i)
    name = np.arange(n).astype(np.int32)
    merged_a, merged_b = np.empty(n, np.int64), np.empty(n, np.int64)
    affinity, n_merges = np.empty(n), 0
    while size > 0:
        score, e = scores[0], edges[0]
        size -= 1
        if size > 0:
            scores[0], ranks[0], edges[0] = scores[size], ranks[size], edges[size]
            _down(scores, ranks, edges, size, 0)
        if not alive[e] or total[e] / weight[e] != score:
            continue
        a, b = u[e], v[e]
        if waiting[a] or waiting[b]:
            waiting[a] = waiting[b] = True
            continue
        merged_a[n_merges], merged_b[n_merges] = min(name[a], name[b]), max(name[a], name[b])
        affinity[n_merges] = score
        n_merges += 1
        alive[e] = False
        degree[a] -= 1
        degree[b] -= 1
        if degree[a] < degree[b]:
            a, b = b, a
        name[a] = min(name[a], name[b])
        name[b] = name[a]
        half = head[b]
        while half >= 0:
            after, f = following[half], half >> 1
            if alive[f]:
                other = v[f] if half % 2 == 0 else u[f]
                key = pair_key(a, other)
                here = place(keys, key)
                if keys[here] == key and alive[values[here]]:
                    g = values[here]
                    alive[f] = False
                    degree[other] -= 1
                    changed = True
                    if average:
                        total[g] += total[f]
                        weight[g] += weight[f]
                    else:
                        changed = _before(
                            total[f] / weight[f], rank[f], total[g] / weight[g], rank[g]
                        )
                        if changed:
                            total[g], weight[g] = total[f], weight[f]
                    rank[g] = min(rank[g], rank[f])
                    score = total[g] / weight[g]
                    if changed and score >= lowest:
                        if size == len(scores):
                            scores = np.concatenate((scores, np.empty_like(scores)))
                            ranks = np.concatenate((ranks, np.empty_like(ranks)))
                            edges = np.concatenate((edges, np.empty_like(edges)))
                        scores[size], ranks[size], edges[size] = score, rank[g], g
                        size += 1
                        _up(scores, ranks, edges, size - 1)
                else:
                    if half % 2 == 0:
                        u[f] = a
                    else:
                        v[f] = a
                    used += keys[here] == 0
                    keys[here], values[here] = key, f
                    _append(following, head, tail, a, half)
                    degree[a] += 1
                    if 4 * used > 3 * len(keys):
                        keys, values, used = _index(u, v, alive, len(keys))
            half = after
    return merged_a[:n_merges], merged_b[:n_merges], affinity[:n_merges], name
