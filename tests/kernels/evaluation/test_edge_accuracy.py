"""Connections by their number of links, and partners by chance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.evaluation.edge_accuracy import (
    EdgeAccuracy,
    connectivity,
    edge_accuracy,
    random_partners,
)
from em_blocks.kernels.synapses.table import TOO_FAR, UNMAPPED


def ids(counts):
    """Links from numbers of links of pairs."""
    return np.array([pair for pair, n in counts.items() for _ in range(n)], int).reshape(-1, 2)


def test_links_are_counted_per_directed_pair():
    found = connectivity(ids({
        (1, 2): 3, (2, 1): 1, (3, 3): 4, (1, UNMAPPED): 1, (TOO_FAR, 2): 1, (0, 2): 5, (5, 1): 2
    }))
    assert found.pairs.tolist() == [[1, 2], [2, 1], [5, 1]] and found.links.tolist() == [3, 1, 2]
    only = connectivity(ids({(1, 2): 3, (2, 1): 1, (5, 1): 2}), sources=[2, 5], targets=[1, 9])
    assert only.pairs.tolist() == [[2, 1], [5, 1]]


def test_connections_by_hand():
    truth = connectivity(ids({(1, 2): 5, (1, 3): 2, (2, 3): 1, (4, 1): 3}))
    prediction = connectivity(ids({(1, 2): 4, (1, 3): 3, (7, 8): 2, (4, 1): 1}))
    one, two, three = edge_accuracy(truth=truth, prediction=prediction, thresholds=(1, 2, 3))
    assert one == (1, 3, 1, 1, 0)
    assert two == (2, 2, 1, 1, 1)  # (7, 8) is false; (2, 3) is true and rightly below
    assert three == (3, 1, 1, 1, 1)
    assert two.accuracy == 3 / 5 and two.score.precision == 2 / 3
    assert len(edge_accuracy(truth=truth, prediction=prediction)) == 29


def test_published_figures_follow_from_published_counts():
    """Calyx at 5 links: doi:10.1038/s41592-021-01183-7, figure 2e."""
    calyx = EdgeAccuracy(5, tp=1965, fp=28, fn=74, tn=212)
    assert [round(calyx.document()[name], 3) for name in ("accuracy", "precision", "recall", "fscore")] \
        == [0.955, 0.986, 0.964, 0.975]


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4))),
       st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4))), st.integers(1, 4))
def test_sparse_counts_are_those_of_full_matrices(true, found, threshold):
    matrices = np.zeros((2, 5, 5), int)
    for matrix, links in zip(matrices, (true, found)):
        for pre, post in links:
            matrix[pre, post] += pre != post
    is_true, is_found = matrices >= threshold
    tables = [connectivity(np.array(links, int).reshape(-1, 2)) for links in (true, found)]
    (edges,) = edge_accuracy(truth=tables[0], prediction=tables[1], thresholds=[threshold])
    assert edges == (
        threshold, (is_true & is_found).sum(), (~is_true & is_found).sum(),
        (is_true & ~is_found).sum(), (~is_true & ~is_found & (matrices[0] > 0)).sum(),
    )


def test_no_links_at_all_are_no_error():
    nothing = connectivity(np.zeros((0, 2), int))
    (edges,) = edge_accuracy(truth=nothing, prediction=nothing, thresholds=[5])
    assert edges == (5, 0, 0, 0, 0) and edges.accuracy == 1.0


def test_partners_by_chance_fill_the_box_at_the_density():
    offset, shape = (400.0, 46.0, -92.0), (2000.0, 1000.0, 500.0)
    vectors = np.array([(40.0, 0, 0), (0, -80.0, 0), (0, 0, 120.0)])
    options = {"offset": offset, "shape": shape, "per_cubic_um": 500, "vectors": vectors}
    found = random_partners(**options, seed=3)
    assert len(found) == 500 and found.id.tolist() == list(range(500))
    assert (found.post >= offset).all() and (found.post < np.add(offset, shape)).all()
    np.testing.assert_allclose(found.post.mean(axis=0), np.add(offset, shape) - np.divide(shape, 2),
                               atol=0.1 * max(shape))
    drawn = np.rint(found.pre - found.post)
    assert {tuple(row) for row in drawn} == {tuple(row) for row in vectors}
    np.testing.assert_array_equal(random_partners(**options, seed=3).pre, found.pre)
    assert (random_partners(**options, seed=4).post != found.post).any()


def test_chance_needs_vectors():
    with pytest.raises(ValueError, match="direction vectors"):
        random_partners(offset=(0, 0, 0), shape=(1, 1, 1), per_cubic_um=1, seed=0,
                        vectors=np.zeros((0, 3)))
