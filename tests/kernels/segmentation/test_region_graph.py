"""Region graphs beside one look at every pair of voxels, and in boxes beside the whole."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.segmentation.neighborhood import FULL, Neighborhood
from em_blocks.kernels.segmentation.region_graph import region_graph

DIRECT = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
# In an order of their own, since volumes have them in any.
MIXED = Neighborhood(((0, 0, -3), (0, -1, 0), (0, -2, -1), (0, 0, -1), (-1, 0, 0), (-2, 0, 0)))
SHAPES = st.tuples(*[st.integers(1, 6)] * 3)
SEEDS = st.integers(0, 2**32 - 1)


def random_case(shape, seed, n=5):
    rng = np.random.default_rng(seed)
    fragments = rng.integers(0, n + 1, shape)
    affinities = rng.integers(0, FULL + 1, (len(MIXED.shifts), *shape)).astype(np.uint16)
    return fragments, affinities


def slow(fragments, affinities, begin, complete):
    """{(u, v): contact z, y, x, direct, long_range, long_range_pairs}"""
    sums = {}
    for c, shift in enumerate(MIXED.shifts):
        for here in itertools.product(*map(range, fragments.shape)):
            before = tuple(h + s for h, s in zip(here, shift, strict=True))
            if min(before) < 0 or any(h < b for h, b in zip(here, begin, strict=True)):
                continue
            u, v = sorted(int(fragments[end]) for end in (here, before))
            if u == v or u == 0:
                continue
            row = sums.setdefault((u, v), [0] * 6)
            affinity = int(affinities[c][here])
            if c in MIXED.direct:
                row[MIXED.direct.index(c)] += 1
                row[3] += affinity
            else:
                row[4] += affinity
                row[5] += 1
    return {
        pair: row for pair, row in sums.items()
        if sum(row[:3]) or not (complete[pair[0]] and complete[pair[1]])
    }


def rows(graph, names=None):
    names = np.arange(1 << 16) if names is None else names
    columns = np.column_stack(
        [graph.contact, graph.direct, graph.long_range, graph.long_range_pairs]
    )
    pairs = np.sort(np.stack([names[graph.u], names[graph.v]], axis=1), axis=1)
    return {tuple(pair): row for pair, row in zip(pairs.tolist(), columns.tolist(), strict=True)}


def added(graphs):
    total = {}
    for graph in graphs:
        for pair, row in graph.items():
            total[pair] = [a + b for a, b in zip(total.get(pair, [0] * 6), row, strict=True)]
    return total


@given(SHAPES, SEEDS, st.tuples(*[st.integers(0, 3)] * 3), st.integers(0, 5))
def test_sums_are_those_over_all_pairs_whose_later_voxel_counts(shape, seed, begin, n_complete):
    fragments, affinities = random_case(shape, seed)
    complete = np.arange(6) <= n_complete
    graph = region_graph(fragments, affinities, MIXED, begin=begin, complete=complete)
    assert rows(graph) == slow(fragments, affinities, begin, complete)
    assert (graph.u < graph.v).all()
    assert (np.diff(graph.u * 10 + graph.v) > 0).all()


def boxes(shape, cuts):
    """Boxes (begin, end) between the cuts of every axis."""
    limits = [sorted({0, n, *(c % n for c in cuts)}) for n, cuts in zip(shape, cuts, strict=True)]
    for parts in itertools.product(*(list(itertools.pairwise(axis)) for axis in limits)):
        yield tuple(p[0] for p in parts), tuple(p[1] for p in parts)


CUTS = st.tuples(*[st.lists(st.integers(0, 5), max_size=2)] * 3)


def graph_of_box(fragments, affinities, begin, end, is_complete):
    """The graph of one box, as a block makes it: with context before it and ids of its own."""
    first = [max(0, b - r) for b, r in zip(begin, MIXED.reach, strict=True)]
    seen = tuple(slice(f, e) for f, e in zip(first, end, strict=True))
    names, numbers = np.unique(fragments[seen], return_inverse=True)
    if names[0] != 0:
        names, numbers = np.concatenate([[0], names]), numbers + 1
    graph = region_graph(
        numbers.reshape(fragments[seen].shape), affinities[:, *seen], MIXED,
        begin=[b - f for b, f in zip(begin, first, strict=True)], complete=is_complete(names),
    )
    return rows(graph, names)


@given(SHAPES, SEEDS, CUTS)
def test_graphs_of_boxes_add_up_to_that_of_the_whole(shape, seed, cuts):
    fragments, affinities = random_case(shape, seed)
    parts = [
        graph_of_box(fragments, affinities, begin, end, lambda names: np.zeros(len(names), bool))
        for begin, end in boxes(shape, cuts)
    ]
    whole = region_graph(fragments, affinities, MIXED, begin=(0, 0, 0), complete=np.zeros(6, bool))
    assert added(parts) == rows(whole)


@given(SHAPES, SEEDS, CUTS)
def test_edges_that_touch_are_whole_although_boxes_leave_out_others(shape, seed, cuts):
    # As blocks do it: a fragment lies in one box, which lists it as complete.
    fragments, affinities = random_case(shape, seed)
    for k, (begin, end) in enumerate(boxes(shape, cuts)):
        own = fragments[tuple(map(slice, begin, end))]
        own += np.where(own > 0, 5 * k, 0)
    parts = [
        graph_of_box(
            fragments, affinities, begin, end,
            lambda names, k=k: (names > 5 * k) & (names <= 5 * (k + 1)),
        )
        for k, (begin, end) in enumerate(boxes(shape, cuts))
    ]
    none = np.zeros(fragments.max() + 1, bool)
    whole = rows(region_graph(fragments, affinities, MIXED, begin=(0, 0, 0), complete=none))
    total = added(parts)
    assert {pair: row for pair, row in total.items() if sum(row[:3])} == {
        pair: row for pair, row in whole.items() if sum(row[:3])
    }
    # And of the others those are left out that lie in one box.
    assert total == {
        (u, v): row for (u, v), row in whole.items() if sum(row[:3]) or (u - 1) // 5 != (v - 1) // 5
    }


def test_more_edges_than_the_first_table_holds_are_all_there():
    fragments = np.arange(1, 30 * 30 * 30 + 1).reshape(30, 30, 30)
    affinities = np.full((3, 30, 30, 30), FULL, np.uint16)
    graph = region_graph(
        fragments, affinities, Neighborhood(DIRECT), begin=(0, 0, 0), complete=np.ones(27001, bool)
    )
    assert len(graph.u) == 3 * 29 * 30 * 30
    assert (graph.contact.sum(axis=1) == 1).all() and (graph.direct == FULL).all()


@pytest.mark.parametrize("shape", [(0, 3, 3), (3, 0, 2), (1, 1, 1), (2, 3, 4)])
@pytest.mark.parametrize("fragment", [0, 1])
def test_none_or_one_fragment_has_no_edges(shape, fragment):
    graph = region_graph(
        np.full(shape, fragment), np.zeros((6, *shape), np.uint16), MIXED, begin=(0, 0, 0),
        complete=np.ones(2, bool),
    )
    assert all(len(column) == 0 for column in graph) and graph.contact.shape == (0, 3)


def test_a_box_that_lies_in_the_context_has_no_edges():
    fragments, affinities = random_case((3, 4, 5), 0)
    graph = region_graph(fragments, affinities, MIXED, begin=(0, 4, 0), complete=np.zeros(6, bool))
    assert len(graph.u) == 0


def test_arrays_that_do_not_fit_are_refused():
    fragments, affinities = random_case((3, 4, 5), 0)
    complete = np.zeros(6, bool)
    with pytest.raises(ValueError, match="affinities"):
        region_graph(fragments[1:], affinities, MIXED, begin=(0, 0, 0), complete=complete)
    with pytest.raises(ValueError, match=r"0\.\.4"):
        region_graph(fragments, affinities, MIXED, begin=(0, 0, 0), complete=complete[1:])
    with pytest.raises(ValueError, match="-1"):
        region_graph(fragments - 1, affinities, MIXED, begin=(0, 0, 0), complete=complete)
