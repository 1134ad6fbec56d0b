"""Cutting a merge forest, beside sets that grow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.segmentation.merge_tree import cut, merge_paths

NODES = st.integers(1, 12)
EDGES = NODES.flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(
            st.tuples(st.integers(0, n - 1), st.integers(0, n - 1), st.booleans()), max_size=20
        ),
    )
)


def columns(rows, *dtypes):
    """Rows as one array per column."""
    return [
        np.array([row[k] for row in rows], dtype) for k, dtype in enumerate(dtypes)
    ]


def grown(n, edges):
    """The set of every node after joining sets along the edges."""
    sets = [{i} for i in range(n)]
    for a, b in edges:
        union = sets[a] | sets[b]
        for i in union:
            sets[i] = union
    return sets


@given(EDGES)
def test_nodes_are_named_by_the_smallest_node_that_kept_edges_connect(case):
    n, rows = case
    a, b, keep = columns(rows, np.int64, np.int32, bool)
    expected = [min(s) for s in grown(n, [(x, y) for x, y, k in rows if k])]
    np.testing.assert_array_equal(cut(n, a, b, keep), expected)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_without_edges_every_node_is_its_own(n):
    none = np.zeros(0, np.int64)
    found = cut(n, none, none, np.zeros(0, bool))
    assert found.dtype == np.int64 and found.tolist() == list(range(n))


def test_long_chains_in_any_order_are_one_cluster():
    n = 100_000
    for order in (np.arange(n - 1), np.arange(n - 1)[::-1], np.random.default_rng(0).permutation(n - 1)):
        assert (cut(n, order, order + 1, np.ones(n - 1, bool)) == 0).all()


@given(EDGES, st.integers(0, 2**32 - 1))
def test_two_nodes_meet_at_the_first_merge_after_which_they_are_together(case, seed):
    n, rows = case
    a, b, _ = columns(rows, np.int64, np.int64, bool)
    score = np.random.default_rng(seed).random(len(rows))
    u, v = np.triu_indices(n, 1)
    expected = []
    for x, y in zip(u.tolist(), v.tolist(), strict=True):
        together = (
            score[i] for i in range(len(rows))
            if y in grown(n, list(zip(a[: i + 1], b[: i + 1], strict=True)))[x]
        )
        expected.append(next(together, 2.5))
    found = merge_paths(n, a, b, score, u, v, unconnected=2.5)
    np.testing.assert_array_equal(found, expected)
