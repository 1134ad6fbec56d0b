"""Agglomeration beside an obvious one, and part by part beside all at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from em_blocks.kernels.segmentation.agglomerate import Graph, LargeRule, agglomerate
from em_blocks.kernels.segmentation.neighborhood import FULL

BINS = 8
AVERAGE, SINGLE = {"average": True}, {"average": False}
RULES = [AVERAGE, SINGLE, {"quantile": 0.75}, {"quantile": 0.5}]
rules = pytest.mark.parametrize("rule", RULES, ids=str)


def random_graph(seed, *, rule=AVERAGE, n=14, density=0.4, ties=False):
    """A graph whose ranks are in no order; with few different scores, or all different ones."""
    rng = np.random.default_rng(seed)
    u, v = np.triu_indices(n, 1)
    taken = rng.random(len(u)) < density
    u, v = u[taken], v[taken]
    if ties:
        weight = rng.integers(1, 4, len(u))
        total = rng.integers(0, weight + 1)
    else:
        weight = rng.integers(1, 1000, len(u)) * 65535
        total = (weight * rng.random(len(u))).astype(np.int64)
    graph = Graph(u, v, total, weight, rng.permutation(len(u)))
    if "quantile" in rule:
        histogram = rng.poisson(0.3 if ties else 20, (len(u), BINS)).astype(np.int32)
        graph = graph._replace(histogram=histogram)
    return n, graph


def score(edge, rule):
    """Affinity of an edge (total, weight, rank, *histogram)."""
    if "quantile" not in rule:
        return edge[0] / edge[1]
    below, target = 0, rule["quantile"] * sum(edge[3:])
    for k, here in enumerate(edge[3:]):
        if here and below + here >= target:
            return round((k + (target - below) / here) / BINS * FULL) / FULL
        below += here
    return 0.0


def parallel(one, other, rule):
    """One edge of two."""
    rank = max(one[2], other[2])
    if rule is SINGLE:
        best = max(one, other, key=lambda edge: score(edge, rule))
        return *best[:2], rank, *best[3:]
    total, weight, _, *histogram = (a + b for a, b in zip(one, other, strict=True))
    return total, weight, rank, *histogram


def rows(graph):
    """Edges (u, v, total, weight, rank, *histogram)."""
    columns = np.column_stack([*graph[:5], *([] if graph.histogram is None else [graph.histogram])])
    return [tuple(row) for row in columns.tolist()]


def graph_of(pairs, rule):
    """{(u, v): (total, weight, rank, *histogram)} as a graph."""
    columns = np.array([(*pair, *edge) for pair, edge in pairs.items()], np.int64)
    columns = columns.reshape(-1, 5 + BINS * ("quantile" in rule))
    return Graph(*columns[:, :5].T, columns[:, 5:] if "quantile" in rule else None)


def merged(edges, rule):
    """Edges (u, v, total, ...) of which several may join the same nodes, each pair once."""
    pairs = {}
    for u, v, *edge in edges:
        pair = min(u, v), max(u, v)
        pairs[pair] = parallel(pairs[pair], edge, rule) if pair in pairs else tuple(edge)
    return pairs


def left_over(graph, rule):
    """What must be the same of two graphs that are left."""
    if rule is AVERAGE:
        return sorted(rows(graph))
    # Of two edges of the same score, total and weight of either may be kept.
    return sorted((*row[:2], score(row[2:], rule), *row[4:]) for row in rows(graph))


def slow(graph, *, lowest, rule, large=None):
    """Look at all edges for the best one, and write the whole graph anew after every merge."""
    merges, pairs = [], merged(rows(graph), rule)
    sizes = large and dict(enumerate(large.sizes.tolist()))

    def may_merge(pair):
        affinity = score(pairs[pair], rule)
        doubtful = large and affinity < large.affinity
        return affinity >= lowest and not (doubtful and min(sizes[n] for n in pair) >= large.large)

    while usable := list(filter(may_merge, pairs)):
        u, v = min(usable, key=lambda pair: (-score(pairs[pair], rule), pairs[pair][2]))
        merges.append((u, v, score(pairs.pop((u, v)), rule)))
        if large:
            sizes[u] += sizes[v]
        pairs = merged(
            [(u if a == v else a, u if b == v else b, *edge) for (a, b), edge in pairs.items()], rule
        )
    return merges, graph_of(pairs, rule)


def triples(merges):
    return list(zip(*(column.tolist() for column in merges), strict=True))


@rules
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([0, 0.3, 0.5, 1, 1.5]))
def test_merges_are_those_of_the_slow_reference(rule, seed, ties, lowest):
    n, graph = random_graph(seed, rule=rule, ties=ties)
    merges, rest = agglomerate(n, graph, lowest=lowest, **rule)
    expected, left = slow(graph, lowest=lowest, rule=rule)
    assert triples(merges) == expected
    assert left_over(rest, rule) == left_over(left, rule)


def large_rule(n, seed, share):
    rng = np.random.default_rng(seed)
    return LargeRule(rng.integers(1, 10, n), int(10 * n * share), float(rng.choice([0.3, 0.5, 0.9])))


@rules
@given(st.integers(0, 2**32 - 1), st.booleans(), st.floats(0.02, 0.3))
def test_large_clusters_merge_as_in_the_slow_reference(rule, seed, ties, share):
    n, graph = random_graph(seed, rule=rule, ties=ties)
    large = large_rule(n, seed, share)
    merges, rest = agglomerate(n, graph, lowest=0.1, **rule, large=large)
    expected, left = slow(graph, lowest=0.1, rule=rule, large=large)
    assert triples(merges) == expected
    assert left_over(rest, rule) == left_over(left, rule)


@rules
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_affinities_of_merges_never_increase(rule, seed, ties):
    n, graph = random_graph(seed, rule=rule, n=60, density=0.1, ties=ties)
    merges, _ = agglomerate(n, graph, lowest=0, **rule)
    assert (np.diff(merges.affinity) <= 0).all()
    assert (merges.a < merges.b).all() and len(np.unique(merges.b)) == len(merges.b)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_single_linkage_is_the_maximum_spanning_forest(seed, ties):
    n, graph = random_graph(seed, n=25, density=0.15, ties=ties)
    merges, rest = agglomerate(n, graph, lowest=0, average=False)
    assert len(rest.u) == 0
    affinity = graph.total / graph.weight
    # Of the largest distances 2 - affinity, so that no stored one is 0.
    tree = minimum_spanning_tree(coo_array((2 - affinity, (graph.u, graph.v)), shape=(n, n)))
    np.testing.assert_allclose(np.sort(2 - tree.data)[::-1], merges.affinity, atol=1e-12)
    for threshold in np.unique(affinity):
        components = []
        for a, b, s in ((graph.u, graph.v, affinity), merges):
            a, b = a[s >= threshold], b[s >= threshold]
            whole = coo_array((np.ones(len(a)), (a, b)), shape=(n, n))
            components.append(connected_components(whole, directed=False)[1])
        np.testing.assert_array_equal(*components)


def in_parts(n, graph, part, *, lowest, rule, large=None):
    """Agglomerate every part on its own: merges, and what is left with the crossing edges.

    Adds the sizes of clusters to their first nodes in `large`.
    """
    crossing = part[graph.u] != part[graph.v]
    is_open = np.zeros(n, bool)
    is_open[graph.u[crossing]] = is_open[graph.v[crossing]] = True
    merges, name, left = [], np.arange(n), []
    for p in np.unique(part):
        nodes = np.flatnonzero(part == p)
        inside = (part[graph.u] == p) & ~crossing
        columns = [column if column is None else column[inside] for column in graph]
        local = Graph(*(np.searchsorted(nodes, ends) for ends in columns[:2]), *columns[2:])
        done, rest = agglomerate(
            len(nodes), local, lowest=lowest, **rule, open_nodes=is_open[nodes],
            large=large and large._replace(sizes=large.sizes[nodes]),
        )
        for a, b, affinity in triples(done):
            merges.append((int(nodes[a]), int(nodes[b]), affinity))
            name[name == nodes[b]] = nodes[a]
            if large:
                large.sizes[nodes[a]] += large.sizes[nodes[b]]
        left += [(int(nodes[u]), int(nodes[v]), *edge) for u, v, *edge in rows(rest)]
    left += [
        (int(name[u]), int(name[v]), *edge)
        for (u, v, *edge), crosses in zip(rows(graph), crossing, strict=True) if crosses
    ]
    return merges, graph_of(merged(left, rule), rule)


@rules
@given(
    st.integers(0, 2**32 - 1), st.booleans(), st.integers(1, 4), st.sampled_from([0, 0.4])
)
@settings(max_examples=200)
def test_parts_agglomerate_to_what_the_whole_does(rule, seed, ties, n_parts, lowest):
    n, graph = random_graph(seed, rule=rule, n=40, density=0.12, ties=ties)
    part = np.sort(np.random.default_rng(seed).integers(0, n_parts, n))
    merges, rest = in_parts(n, graph, part, lowest=lowest, rule=rule)
    last, left = agglomerate(n, rest, lowest=lowest, **rule)
    whole, left_of_whole = agglomerate(n, graph, lowest=lowest, **rule)
    assert sorted(merges + triples(last)) == sorted(triples(whole))
    assert left_over(left, rule) == left_over(left_of_whole, rule)


@rules
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_three_levels_of_parts_agglomerate_to_what_the_whole_does(rule, seed, ties):
    n, graph = random_graph(seed, rule=rule, n=60, density=0.06, ties=ties)
    whole, _ = agglomerate(n, graph, lowest=0, **rule)
    merges, part = [], np.arange(n) // 8
    while len(graph.u):
        done, graph = in_parts(n, graph, part, lowest=0, rule=rule)
        merges += done
        part = part // 3
    assert sorted(merges) == sorted(triples(whole))


@rules
@given(st.integers(0, 2**32 - 1), st.booleans(), st.floats(0.01, 0.2))
def test_parts_obey_the_rule_for_large_clusters_as_the_whole_does(rule, seed, ties, share):
    n, graph = random_graph(seed, rule=rule, n=60, density=0.06, ties=ties)
    large = large_rule(n, seed, share)
    whole, left = agglomerate(n, graph, lowest=0.1, **rule, large=large)
    merges, part = [], np.arange(n) // 8
    large = large._replace(sizes=large.sizes.copy())
    for _ in range(4):
        done, graph = in_parts(n, graph, part, lowest=0.1, rule=rule, large=large)
        merges += done
        part = part // 3
    assert sorted(merges) == sorted(triples(whole))
    assert left_over(graph, rule) == left_over(left, rule)


def test_most_of_a_part_does_not_wait_for_others():
    side = 12
    ids = np.arange(side**3).reshape((side,) * 3)
    u = np.concatenate([ids[1:].ravel(), ids[:, 1:].ravel(), ids[:, :, 1:].ravel()])
    v = np.concatenate([ids[:-1].ravel(), ids[:, :-1].ravel(), ids[:, :, :-1].ravel()])
    total = np.random.default_rng(3).integers(0, 1 << 16, len(u))
    graph = Graph(u, v, total, np.full(len(u), 65535), np.arange(len(u)))
    inner = np.zeros_like(ids, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    merges, rest = agglomerate(ids.size, graph, lowest=0.0, open_nodes=~inner.ravel())
    assert 500 < len(merges.a) < inner.sum()
    touched = np.unique(np.concatenate([merges.a, merges.b]))
    assert inner.ravel()[touched].all() and len(rest.u) < 0.8 * len(u)


def test_a_node_whose_best_partner_waits_does_not_take_the_second_best():
    graph = Graph(
        np.array([0, 1, 2]), np.array([1, 2, 3]), np.array([9, 8, 7]), np.full(3, 10), np.arange(3)
    )
    merges, rest = agglomerate(4, graph, lowest=0, open_nodes=np.array([True, False, False, False]))
    assert len(merges.a) == 0 and sorted(rows(rest)) == sorted(rows(graph))
    # But those beyond its second best go on.
    stronger = graph._replace(total=np.array([9, 6, 7]))
    merges, _ = agglomerate(4, stronger, lowest=0, open_nodes=np.array([True, False, False, False]))
    assert triples(merges) == [(2, 3, 0.7)]


@rules
@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_graph_without_edges_has_no_merges(n, rule):
    none = graph_of({}, rule)
    merges, rest = agglomerate(
        n, none, lowest=0, **rule, open_nodes=np.zeros(n, bool)
    )
    assert [len(column) for column in (*merges, *rest[:5])] == [0] * 8
    assert merges.a.dtype == rest.u.dtype == np.int64


def test_the_graph_that_was_given_stays_as_it_is():
    n, graph = random_graph(5)
    before = [column.copy() for column in graph[:5]]
    waiting = np.zeros(n, bool)
    waiting[3] = True
    agglomerate(n, graph, lowest=0, open_nodes=waiting)
    assert all((a == b).all() for a, b in zip(graph[:5], before, strict=True))
    assert waiting.sum() == 1


def test_a_hub_is_as_fast_as_a_chain():
    n = 200_000
    hub = Graph(
        np.zeros(n - 1, np.int64), np.arange(1, n), np.arange(1, n) % 1000, np.full(n - 1, 1000),
        np.arange(n - 1),
    )
    merges, rest = agglomerate(n, hub, lowest=0.5)
    assert len(merges.a) == (hub.total >= 500).sum() and (merges.a == 0).all()
    assert len(rest.u) == n - 1 - len(merges.a)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v": np.array([1, 4])}, "0..3"),
        ({"u": np.array([0, -1])}, "0..3"),
        ({"u": np.array([1, 1])}, "two of the nodes"),
        ({"weight": np.array([5, 0])}, "positive"),
    ],
)
def test_edges_that_make_no_sense_are_refused(change, message):
    graph = Graph(
        np.array([0, 1]), np.array([1, 2]), np.array([2, 3]), np.array([5, 5]), np.array([0, 1])
    )
    with pytest.raises(ValueError, match=message):
        agglomerate(4, graph._replace(**change), lowest=0)


def test_sizes_of_other_nodes_are_refused():
    n, graph = random_graph(0)
    with pytest.raises(ValueError, match="13 sizes"):
        agglomerate(n, graph, lowest=0, large=LargeRule(np.ones(13, np.int64), 5, 0.5))
