import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.connectome import graph as connectome_graph
from em_blocks.kernels.connectome import statistics as network_statistics
from em_blocks.kernels.connectome.graph import Connectome, ConnectomeCounter, connectome
from em_blocks.kernels.connectome.statistics import mean_clustering
from em_blocks.kernels.synapses.table import LARGEST_ID, Synapses

segments = st.sampled_from([-1, 0, 1, 2, 3, 7, 2**40, LARGEST_ID])
pairs = st.lists(st.tuples(segments, segments), max_size=30)


def table(pairs, seed=0):
    rng = np.random.default_rng(seed)
    n = len(pairs)
    ends = np.array(pairs, np.int64).reshape(-1, 2).T
    return Synapses(
        id=np.arange(n), pre=rng.random((n, 3)) * 1e5, post=rng.random((n, 3)) * 1e5,
        score=np.where(rng.random(n) < 0.2, np.nan, rng.random(n)),
        pre_segment=ends[0], post_segment=ends[1], pre_skeleton=ends[1], post_skeleton=ends[0],
    )


def counted_by_hand(synapses):
    """Weight, score and position of every connection, one synapse after the other."""
    edges = {}
    for row in range(len(synapses)):
        pair = int(synapses.pre_segment[row]), int(synapses.post_segment[row])
        if min(pair) > 0:
            edges.setdefault(pair, []).append(row)
    middle = (synapses.pre + synapses.post) / 2
    return {
        pair: (len(rows), np.nansum(synapses.score[rows]), middle[rows].mean(axis=0))
        for pair, rows in edges.items()
    }


@given(pairs, st.lists(st.integers(0, 30), max_size=3), st.sampled_from([2, 1 << 20]))
def test_connections_equal_a_count_by_hand_however_the_table_is_cut(pairs, cuts, waiting):
    whole = table(pairs)
    ends = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    counter = ConnectomeCounter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connectome_graph, "_WAITING_ROWS", waiting)
        for first, end in itertools.pairwise(ends):
            counter.add(whole.select(slice(first, end)))
    found, wanted = counter.result(), counted_by_hand(whole)
    assert list(zip(found.pre.tolist(), found.post.tolist(), strict=True)) == sorted(wanted)
    for row, (weight, score, position) in enumerate(wanted[pair] for pair in sorted(wanted)):
        assert found.weight[row] == weight
        np.testing.assert_allclose(found.score[row], score)
        np.testing.assert_allclose(found.position[row], position)
    assert counter.n_synapses == found.weight.sum()
    assert counter.n_synapses + counter.n_left_out == len(whole)


def test_the_matrix_has_presynaptic_objects_in_rows():
    matrix, ids = connectome([table([(5, 2), (5, 2), (2, 9), (0, 2)])]).matrix()
    assert ids.tolist() == [2, 5, 9]
    assert matrix.toarray().tolist() == [[0, 0, 1], [2, 0, 0], [0, 0, 0]]


def test_nodes_can_be_skeletons():
    found = connectome([table([(5, 2), (5, 2)])], objects="skeleton")
    assert (found.pre.tolist(), found.post.tolist()) == ([2], [5])


def test_weak_connections_are_left_out():
    found = connectome([table([(5, 2), (5, 2), (2, 9)])]).at_least(2)
    assert (found.pre.tolist(), found.weight.tolist()) == ([5], [2])


# -- statistics ----------------------------------------------------------------------------


def graph_of(edges):
    return connectome([table([(a + 1, b + 1) for a, b in edges])])


def as_networkx(graph: Connectome):
    made = nx.DiGraph()
    made.add_weighted_edges_from(zip(
        graph.pre.tolist(), graph.post.tolist(), graph.weight.tolist(), strict=True
    ))
    return made


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=40),
       st.sampled_from([1, 2e7]))
def test_statistics_equal_those_of_networkx(edges, pairs_at_once):
    graph = graph_of(edges)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_statistics, "_PAIRS_AT_ONCE", pairs_at_once)
        found = network_statistics.network_statistics(graph)
    slow = as_networkx(graph)
    assert found["neurons"] == len(slow) and found["connections"] == slow.number_of_edges()
    assert found["self_connections"] == nx.number_of_selfloops(slow)
    assert found["synapses"] == len(edges)
    slow.remove_edges_from(list(nx.selfloop_edges(slow)))
    both = slow.to_undirected()
    assert found["max_in_degree"] == max(dict(slow.in_degree).values())
    assert found["max_out_degree"] == max(dict(slow.out_degree).values())
    assert found["components"] == nx.number_connected_components(both)
    assert found["largest_component"] == max(map(len, nx.connected_components(both)))
    assert found["largest_strong_component"] == max(map(len, nx.strongly_connected_components(slow)))
    assert found["independent_cycles"] == len(nx.cycle_basis(both))
    np.testing.assert_allclose(found["clustering"], nx.average_clustering(both))
    if len(slow) > 1:
        np.testing.assert_allclose(
            found["max_degree_centrality"], max(nx.degree_centrality(both).values())
        )
    if slow.number_of_edges():
        np.testing.assert_allclose(found["reciprocity"], nx.overall_reciprocity(slow))


def test_statistics_of_nothing_are_zero():
    found = network_statistics.network_statistics(connectome([]))
    assert not any(found.values())


def test_clustering_that_would_take_too_long_is_not_given(monkeypatch):
    monkeypatch.setattr(network_statistics, "_MOST_PAIRS", 10)
    matrix, _ = graph_of([(a, b) for a in range(5) for b in range(5) if a != b]).matrix()
    assert mean_clustering(matrix) is None
