"""Agglomeration of a region graph into a merge forest, whole or part by part."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from em_blocks.kernels.segmentation.neighborhood import FULL
from em_blocks.kernels.segmentation.pair_table import pair_key, place

_LEVELS = 1 << 16
"""Buckets of the queue of edges, by affinity. Their number changes the speed, not the result."""
_TOTAL, _WEIGHT, _RANK, _END, _NEXT = 0, 1, 2, 6, 8
"""Columns of the table of edges; the last two, of 32 bits, exist once per end."""


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
        Sum of what affinity 1 would have given, above 0; the score is total / weight.
    rank : (n,) int64 array
        All different: of two edges of the same score, that of lower rank is taken first. Edges
        that become one have the highest of their ranks: then they never come before the first
        of them, even where scores are equal, and it does not matter which became one first.
    """

    u: np.ndarray
    v: np.ndarray
    total: np.ndarray
    weight: np.ndarray
    rank: np.ndarray
    histogram: np.ndarray | None = None
    """(n, bins) int32, only for quantiles: affinities of the contact in equal bins of 0..1."""


class LargeRule(NamedTuple):
    """Two large clusters merge only where there is little doubt.

    A wrong merge of two neurons costs more than any split, and neurons are large; a fragment that
    is left over is small.
    """

    sizes: np.ndarray  # (n_nodes,) int64, voxels
    large: int  # voxels from which on a cluster is large
    affinity: float  # two large ones merge at no less


def agglomerate(
    n: int, graph: Graph, *, lowest: float, average: bool = True,
    open_nodes: np.ndarray | None = None, large: LargeRule | None = None,
    quantile: float | None = None,
) -> tuple[Merges, Graph]:
    """Merge along the strongest edge again and again, as far as is certain.

    The edge between two clusters has the mean (`average`) or the largest affinity of the edges
    between their nodes. Where some nodes have further edges that are not in this graph
    (`open_nodes`), exactly those merges are done that the agglomeration of the whole graph does
    as well: under both rules a merge never strengthens an edge beyond the merged one, so two
    nodes that are each other's best may merge at any time (reciprocal nearest neighbours), and a
    node whose best edge is not certain waits. That holds to the last merge, ties included.

    Parameters
    ----------
    n : int
        Number of nodes.
    lowest : float
        Weaker edges do not merge.
    open_nodes : (n,) bool array, optional
    large : LargeRule, optional
    quantile : float, optional
        The affinity between two clusters is this quantile of the affinities of their contact,
        from the histograms of the graph, instead of `total` / `weight`. It looks at the best part
        of a contact: two branches of a neuron that run side by side, with membranes between them,
        are still one where they part. The quantile of two contacts together lies between theirs,
        so all that is said above holds for it as well.

    Returns
    -------
    merges : Merges
    rest : Graph
        What is left: edges between clusters, each named by its smallest node.

    Raises
    ------
    ValueError
        If a weight is not positive, an edge has no two nodes below `n`, sizes are not one per node,
        or there are 2^30 edges or more.

    References
    ----------
    Murtagh 1983, doi:10.1093/comjnl/26.4.354 (reciprocal nearest neighbours); Bailoni et al. 2022,
    "GASP", doi:10.1109/CVPR52688.2022.01136 (average linkage on signed graphs).
    """
    if len(graph.u) >= 2**30:
        raise ValueError(f"{len(graph.u)} edges are too many for one graph; agglomerate it in parts")
    if len(graph.u):
        first, last = min(graph.u.min(), graph.v.min()), max(graph.u.max(), graph.v.max())
        if first < 0 or last >= n or (graph.u == graph.v).any():
            raise ValueError(f"edges must join two of the nodes 0..{n - 1}, got {first}..{last}")
        if graph.weight.min() <= 0:
            raise ValueError(f"weights must be positive, got {graph.weight.min()}")
    large = large or LargeRule(np.zeros(n, np.int64), 1, 0.0)
    if len(large.sizes) != n:
        raise ValueError(f"{len(large.sizes)} sizes for {n} nodes")
    waiting = np.zeros(n, bool) if open_nodes is None else open_nodes.astype(bool)
    histogram = np.zeros((0, 1), np.int32)
    if quantile is not None:
        histogram = np.array(graph.histogram, np.int32)  # a copy, which changes
        graph = graph._replace(
            total=quantiles(histogram, quantile), weight=np.full(len(graph.u), FULL, np.int64)
        )
    # One row per edge, so that looking at an edge costs one cache miss and not seven: total,
    # weight (0: the edge was removed), rank, both ends, and what follows it in the list of either end.
    longs = np.empty((len(graph.u), 5), np.int64)
    longs[:, _TOTAL], longs[:, _WEIGHT], longs[:, _RANK] = graph.total, graph.weight, graph.rank
    shorts = longs.view(np.int32)
    shorts[:, _END], shorts[:, _END + 1] = graph.u, graph.v
    # Large arrays are made here, since numpy asks for huge pages and numba does not.
    slots = np.zeros((max(16, 1 << (2 * len(longs) - 1).bit_length()), 2), np.uint64)
    queued = np.empty(len(longs), np.int32)
    a, b, affinity, name = _agglomerate(
        n, longs, shorts, slots, queued, waiting, float(lowest), average,
        large.sizes.astype(np.int64), large.large, float(large.affinity), histogram,
        -1.0 if quantile is None else float(quantile),
    )
    stays = longs[:, _WEIGHT] > 0
    left = longs[stays]
    ends = name[left.view(np.int32)[:, _END : _END + 2]].astype(np.int64)
    rest = Graph(
        ends.min(axis=1), ends.max(axis=1), left[:, _TOTAL].copy(), left[:, _WEIGHT].copy(),
        left[:, _RANK].copy(), histogram=None if quantile is None else histogram[stays],
    )
    return Merges(a, b, affinity), rest


def quantiles(histogram: np.ndarray, quantile: float) -> np.ndarray:
    """Quantile of every row of an (n, bins) int array, linear within a bin: int64 of `FULL`."""
    result = np.empty(len(histogram), np.int64)
    _quantiles(np.ascontiguousarray(histogram, np.int32), float(quantile), result)
    return result


@njit(cache=True)
def _quantiles(histogram, quantile, result):
    for e in range(len(histogram)):
        result[e] = _quantile(histogram, e, quantile)


@njit(cache=True)
def _quantile(histogram, e, quantile):
    bins = histogram.shape[1]
    count = np.int64(0)
    for k in range(bins):
        count += histogram[e, k]
    target, below = quantile * count, np.int64(0)
    for k in range(bins):
        here = histogram[e, k]
        if here > 0 and below + here >= target:
            return np.int64(round((k + (target - below) / here) / bins * FULL))
        below += here
    return np.int64(0)


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


@njit(cache=True, inline="always")
def _level(score):
    return max(0, min(_LEVELS - 1, int(score * _LEVELS)))


@njit(cache=True)
def _queue(longs, e, level, lowest, first, queued, scores, ranks, edges, size):
    """Put an edge where it belongs: into the heap of this level, a lower list, or nowhere.

    Returns the size of the heap.
    """
    if longs[e, _WEIGHT] == 0:
        return size
    score = longs[e, _TOTAL] / longs[e, _WEIGHT]
    if score < lowest:
        return size
    at = _level(score)
    if at < level:
        queued[e], first[at] = first[at], e
        return size
    scores[size], ranks[size], edges[size] = score, longs[e, _RANK], e
    _up(scores, ranks, edges, size)
    return size + 1


@njit(cache=True)
def _index(longs, shorts, slots):
    """Fill a table from pairs of clusters to edges; how many there are."""
    slots[:] = 0
    keys, used = slots[:, 0], 0
    for e in range(len(longs)):
        if longs[e, _WEIGHT] > 0:
            key = pair_key(shorts[e, _END], shorts[e, _END + 1])
            here = place(keys, key)
            slots[here, 0], slots[here, 1] = key, e
            used += 1
    return used


@njit(cache=True, inline="always")
def _append(shorts, head, tail, length, node, half):
    """Add a half-edge to the list of a node."""
    shorts[half >> 1, _NEXT + (half & 1)] = -1
    if head[node] < 0:
        head[node] = half
    else:
        last = tail[node]
        shorts[last >> 1, _NEXT + (last & 1)] = half
    tail[node] = half
    length[node] += 1


@njit(cache=True, nogil=True)
def _agglomerate(
    n, longs, shorts, slots, queued, waiting, lowest, average, sizes, large, large_affinity,
    histogram, quantile
):
    """Changes the edges to what is left.

    Half-edge 2 e + s is edge e as seen from its end s. When two clusters merge, the shorter of
    their lists of half-edges is carried over to the other, so that each is carried over at most
    log(n) times.

    The queue has one list of edges per level of affinity, and a heap of those of the current
    level. Every edge is in it once, never behind its place: of two edges that become one, the
    stronger stays, and by then is too far in front; that is seen when its turn comes.
    """
    n_edges = len(longs)
    used = _index(longs, shorts, slots)
    keys = slots[:, 0]
    head, tail = np.full(n, -1, np.int32), np.full(n, -1, np.int32)
    length = np.zeros(n, np.int32)
    first = np.full(_LEVELS, -1, np.int32)
    for e in range(n_edges - 1, -1, -1):
        for s in range(2):
            _append(shorts, head, tail, length, shorts[e, _END + s], 2 * e + s)
        score = longs[e, _TOTAL] / longs[e, _WEIGHT]
        if score >= lowest:
            level = _level(score)
            queued[e], first[level] = first[level], e
    # Memory that is never written to is never given out: the heap of one level is small.
    scores, ranks = np.empty(n_edges), np.empty(n_edges, np.int64)
    edges, size = np.empty(n_edges, np.int32), 0
    name = np.arange(n).astype(np.int32)
    merged_a, merged_b = np.empty(n, np.int64), np.empty(n, np.int64)
    affinity, n_merges = np.empty(n), 0
    for level in range(_LEVELS - 1, _level(lowest) - 1, -1):
        e = first[level]
        while e >= 0:
            after = queued[e]
            size = _queue(longs, e, level, lowest, first, queued, scores, ranks, edges, size)
            e = after
        while size > 0:
            score, rank, e = scores[0], ranks[0], edges[0]
            size -= 1
            if size > 0:
                scores[0], ranks[0], edges[0] = scores[size], ranks[size], edges[size]
                _down(scores, ranks, edges, size, 0)
            if longs[e, _WEIGHT] == 0:
                continue
            if longs[e, _TOTAL] / longs[e, _WEIGHT] != score or longs[e, _RANK] != rank:
                size = _queue(longs, e, level, lowest, first, queued, scores, ranks, edges, size)
                continue
            a, b = shorts[e, _END], shorts[e, _END + 1]
            if waiting[a] or waiting[b]:
                waiting[a] = waiting[b] = True
                continue
            if score < large_affinity and sizes[a] >= large and sizes[b] >= large:
                continue  # for ever: clusters only grow, and their edge only gets weaker
            merged_a[n_merges], merged_b[n_merges] = min(name[a], name[b]), max(name[a], name[b])
            affinity[n_merges] = score
            n_merges += 1
            longs[e, _WEIGHT] = 0
            if length[a] < length[b]:
                a, b = b, a
            name[a] = min(name[a], name[b])
            sizes[a] += sizes[b]
            half = head[b]
            while half >= 0:
                f, s = half >> 1, half & 1
                after = shorts[f, _NEXT + s]
                if longs[f, _WEIGHT] > 0:
                    key = pair_key(a, shorts[f, _END + 1 - s])
                    here = place(keys, key)
                    stays = True
                    if keys[here] == key:
                        g = np.int64(slots[here, 1])
                        stays = _join(longs, f, g, average, histogram, quantile)
                    else:
                        keys[here] = key
                        used += 1
                    if stays:
                        slots[here, 1] = f
                        shorts[f, _END + s] = a
                        _append(shorts, head, tail, length, a, half)
                    if 4 * used > 3 * len(keys):
                        used = _index(longs, shorts, slots)
                half = after
    return merged_a[:n_merges], merged_b[:n_merges], affinity[:n_merges], name


@njit(cache=True, inline="always")
def _join(longs, f, g, average, histogram, quantile):
    """Make one edge of two, in the place of the stronger. Whether that is `f`."""
    score_f = longs[f, _TOTAL] / longs[f, _WEIGHT]
    score_g = longs[g, _TOTAL] / longs[g, _WEIGHT]
    stays = _before(score_f, longs[f, _RANK], score_g, longs[g, _RANK])
    if not stays:
        f, g = g, f
    if quantile >= 0:
        for k in range(histogram.shape[1]):
            histogram[f, k] += histogram[g, k]
        longs[f, _TOTAL] = _quantile(histogram, f, quantile)
    elif average:
        longs[f, _TOTAL] += longs[g, _TOTAL]
        longs[f, _WEIGHT] += longs[g, _WEIGHT]
    longs[f, _RANK] = max(longs[f, _RANK], longs[g, _RANK])
    longs[g, _WEIGHT] = 0
    return stays
