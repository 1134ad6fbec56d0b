"""Run lengths that can be counted by hand."""

import networkx as nx
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.skeletons.run_length import as_columns, expected_run_length


def path(*steps, start=0.0):
    """A path along x whose edges have the lengths `steps`, nm."""
    graph = nx.path_graph(len(steps) + 1)
    for node, x in enumerate(np.cumsum([start, *steps])):
        graph.nodes[node]["position"] = (4.0, 5.0, x)
    return graph


def run_length(graphs, segments, **options):
    return expected_run_length(as_columns(graphs), np.array(segments), **options)


def test_a_perfect_segmentation_has_runs_as_long_as_the_skeletons():
    found = run_length([path(1, 2, 3), path(4)], [7, 7, 7, 7, 9, 9])
    assert found.expected_nm == found.perfect_nm == (6**2 + 4**2) / 10
    assert found.total_nm == found.correct_nm == 10
    np.testing.assert_array_equal(found.expected_each_nm, found.lengths_nm)


def test_a_split_edge_counts_for_neither_side():
    found = run_length([path(1, 2, 3)], [7, 7, 8, 8])
    assert (found.correct_nm, found.split_nm) == (4, 2)
    assert found.expected_nm == (1**2 + 3**2) / 6


def test_a_segment_that_is_left_and_entered_again_is_one_run():
    found = run_length([path(2, 1, 1, 3)], [7, 7, 8, 7, 7])
    assert found.expected_nm == (2 + 3) ** 2 / 7


def test_a_segment_of_two_skeletons_is_worth_nothing_but_their_other_segments_are():
    found = run_length([path(1, 2, 4), path(8)], [5, 5, 6, 6, 5, 5])
    assert (found.merged_nm, found.split_nm, found.correct_nm) == (9, 2, 4)
    assert found.expected_nm == 4**2 / 15 and found.merging_segments == 1
    np.testing.assert_array_equal(found.expected_each_nm, [16 / 7, 0])
    assert found.perfect_nm == (7**2 + 8**2) / 15


def test_background_is_no_object_and_merges_nothing():
    found = run_length([path(1, 2, 4), path(8)], [0, 0, 6, 6, 0, 0])
    assert (found.omitted_nm, found.correct_nm, found.merging_segments) == (11, 4, 0)
    as_object = run_length([path(1, 2, 4), path(8)], [0, 0, 6, 6, 0, 0], background=None)
    assert (as_object.omitted_nm, as_object.merged_nm, as_object.merging_segments) == (0, 9, 1)


def test_edges_that_leave_the_segmentation_do_not_count():
    inside = np.array([True, True, False, True, True])
    found = run_length([path(1, 2), path(8)], [5, 5, 9, 9, 9], inside=inside)
    assert found.total_nm == found.correct_nm == 9 and found.merging_segments == 0
    assert found.expected_nm == found.perfect_nm == (1 + 64) / 9


def test_skeletons_without_edges_have_no_length():
    found = run_length([path(), path()], [1, 2])
    assert found.expected_nm == found.perfect_nm == found.total_nm == 0
    assert run_length([], []).expected_nm == 0


def slow_run_length(graphs, segments):
    """The definition, written out."""
    rows, first = [], 0
    for number, graph in enumerate(graphs):
        rows += [(number, graph, node, segments[first + n]) for n, node in enumerate(graph)]
        first += len(graph)
    segment = {(number, node): s for number, _, node, s in rows}
    covered = {s: {number for number, _, _, t in rows if t == s} for s in set(segments)}
    total, runs = 0.0, {}
    for number, graph in enumerate(graphs):
        for u, v in graph.edges:
            ends = [np.array(graph.nodes[n]["position"]) for n in (u, v)]
            length = np.linalg.norm(ends[0] - ends[1])
            total += length
            a, b = segment[number, u], segment[number, v]
            if a == b != 0 and len(covered[a]) == 1:
                runs[number, a] = runs.get((number, a), 0) + length
    return sum(run**2 for run in runs.values()) / total if total else 0


@given(
    st.lists(st.lists(st.integers(1, 9), max_size=5), max_size=4).flatmap(
        lambda steps: st.tuples(
            st.just(steps),
            st.lists(st.integers(0, 5), min_size=sum(len(s) + 1 for s in steps),
                     max_size=sum(len(s) + 1 for s in steps)),
        )
    )
)
def test_run_lengths_are_the_slow_reference(case):
    steps, segments = case
    graphs = [path(*s) for s in steps]
    found = run_length(graphs, np.array(segments, np.uint64))
    np.testing.assert_allclose(found.expected_nm, slow_run_length(graphs, segments))
    parts = found.correct_nm + found.split_nm + found.merged_nm + found.omitted_nm
    np.testing.assert_allclose(parts, found.total_nm)
    assert found.expected_nm <= found.perfect_nm + 1e-9
