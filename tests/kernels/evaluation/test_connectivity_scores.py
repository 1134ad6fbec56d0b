"""Matrices and scores against dense ones."""

from functools import partial

import numpy as np
import pytest
from scipy import sparse

from dilating import random_volume, sizes_of, slow_credits
from em_blocks.kernels.evaluation.connectivity import Credits, credit_synapses, reach_in_voxels
from em_blocks.kernels.evaluation.connectivity_scores import (
    Directions,
    Neurons,
    Rule,
    connectivity,
    draw_matrices,
    edges,
    score_pairs,
)
from em_blocks.kernels.evaluation.counts import Sizes


def rows(*rows):
    """Credits of (synapse, a, b, voxels)."""
    synapse, a, b, voxels = np.array(rows, np.uint64).reshape(-1, 4).T
    return Credits.of_rows(voxels.astype(np.int64), synapse, a, b)


def neurons_of(volume, min_voxels=1, exclude=()):
    sizes = sizes_of(volume)
    table = Sizes(np.array(list(sizes.values())), np.array([id for id, in sizes], np.uint64))
    return Neurons.of(table, min_voxels=min_voxels, exclude=exclude)


def slow_matrix(credits, ids):
    """For every pair, its synapses counted one by one."""
    place = {int(id): row for row, id in enumerate(ids)}
    matrix = np.zeros((len(ids), len(ids)), int)
    for _, a, b in credits:
        if a in place and b in place:
            matrix[place[a], place[b]] += 1
            matrix[place[b], place[a]] += 1
    return matrix


def dense_scores(prediction, truth, places):
    """As scikit-learn computes them of two binary vectors."""
    p, t = (matrix[places] > 0 for matrix in (prediction, truth))
    tp = (p & t).sum()
    precision = tp / p.sum() if p.sum() else 0.0
    recall = tp / t.sum() if t.sum() else 0.0
    f = 2 * precision * recall / (precision + recall) if tp else 0.0
    return precision, recall, f


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(("min_voxels", "n_excluded"), [(1, 0), (4_300, 0), (1, 3)])
def test_matrices_and_scores_are_those_of_the_method(n, min_voxels, n_excluded):
    volume, true = random_volume(3, shape=(12, 120, 120))
    predicted = np.where(random_volume(4, shape=(12, 120, 120))[1] % 3 == 1, 100, true * (true < 20))
    sizes = sizes_of(volume)
    exclude = [id for id, in list(sizes)[5:5 + n_excluded]]
    neurons = neurons_of(volume, min_voxels, exclude)
    kept = {id for id, in sizes if sizes[id,] >= min_voxels} - set(exclude)
    assert set(neurons.ids.tolist()) == kept and len(kept) >= 3
    assert (np.diff(neurons.voxels) <= 0).all()
    matrices, expected = {}, {}
    for side, synapses in {"truth": true, "prediction": predicted}.items():
        credits = credit_synapses(synapses, volume, reach_in_voxels(n))
        matrices[side] = connectivity(partial(list, [credits]), neurons, Rule()).matrix
        expected[side] = slow_matrix(slow_credits(synapses, volume, n), neurons.ids)
        np.testing.assert_array_equal(matrices[side].toarray(), expected[side])
    found = score_pairs(**matrices)
    np.testing.assert_allclose(
        found[:3], dense_scores(**expected, places=np.triu_indices(len(kept)))
    )
    assert found.n_neurons == len(kept) and found.tp > 0


def test_rows_are_neurons_by_size_and_equally_large_ones_by_id():
    sizes = Sizes(np.array([5, 9, 5, 49, 50]), np.array([8, 2**63, 3, 4, 1], np.uint64))
    assert Neurons.of(sizes, min_voxels=5, exclude=[4]).ids.tolist() == [1, 2**63, 3, 8]
    neurons = Neurons.of(sizes, min_voxels=50)
    assert neurons.ids.tolist() == [1]
    assert neurons.rows_of(np.array([1, 3, 0, 2**63], np.uint64)).tolist() == [0, -1, -1, -1]
    assert len(Neurons.of(sizes, min_voxels=99)) == 0


NEURONS = Neurons(np.array([10, 20, 30], np.uint64), np.array([9, 8, 7]))
AMBIGUOUS = rows(
    (1, 10, 20, 4), (1, 10, 30, 6), (1, 20, 30, 6), (1, 0, 0, 9), (2, 10, 20, 1), (2, 0, 0, 1),
    (3, 0, 0, 5), (4, 20, 99, 50), (4, 10, 20, 1), (4, 0, 0, 60),
)


def matrix(rule, tables=(AMBIGUOUS,), **options):
    return connectivity(lambda: tables, NEURONS, rule, **options).matrix.toarray().tolist()


def test_every_pair_of_a_synapse_counts():
    found = connectivity(lambda: [AMBIGUOUS], NEURONS, Rule())
    assert found.matrix.toarray().tolist() == [[0, 3, 1], [3, 0, 1], [1, 1, 0]]
    assert found.synapses.id.tolist() == [1, 2, 3, 4] and found.n_pairs.tolist() == [3, 1, 0, 1]
    assert found.synapses.voxels.tolist() == [9, 1, 5, 60]


def test_only_the_best_pair_of_a_synapse_counts_and_smaller_ids_win_ties():
    # Pairs with a neuron that is left out do not compete: synapse 4 goes to (10, 20).
    assert matrix(Rule("best")) == [[0, 2, 1], [2, 0, 0], [1, 0, 0]]


def test_a_pair_needs_a_least_overlap():
    assert matrix(Rule(min_overlap=5)) == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]


def test_known_partners_give_directions_and_count_only_where_they_are_credited():
    known = Directions(*np.array([
        (1, 20, 10), (1, 20, 10), (1, 10, 20), (2, 20, 10), (2, 10, 30), (9, 10, 20), (4, 99, 20),
    ], np.uint64).T)
    found = connectivity(lambda: [AMBIGUOUS], NEURONS, Rule("directed", directions=known))
    assert found.matrix.toarray().tolist() == [[0, 1, 0], [2, 0, 0], [0, 0, 0]]
    assert found.n_pairs.tolist() == [2, 1, 0, 0]
    nothing = Directions(*np.zeros((3, 0), np.uint64))
    assert not np.any(matrix(Rule("directed", directions=nothing)))


def test_all_entries_of_directed_matrices_are_compared():
    truth, prediction = sparse.csr_array([[0, 2], [0, 0]]), sparse.csr_array([[0, 0], [7, 0]])
    assert score_pairs(prediction=prediction, truth=truth, directed=True)[:3] == (0, 0, 0)
    both = sparse.csr_array([[0, 1], [1, 0]])
    assert score_pairs(prediction=both, truth=truth, directed=True)[:3] == (0.5, 1, 2 / 3)


@pytest.mark.parametrize("max_rows", [1, 3, 100])
def test_parts_of_tables_make_the_same_matrices(max_rows):
    tables = [AMBIGUOUS.rows(np.arange(len(AMBIGUOUS)) % 3 == k) for k in range(3)]
    for mode in ("all", "best"):
        found = connectivity(lambda: tables, NEURONS, Rule(mode), max_rows=max_rows)
        assert found.matrix.toarray().tolist() == matrix(Rule(mode))
        assert found.synapses.id.tolist() == [1, 2, 3, 4]
        assert found.n_pairs.tolist() == ([3, 1, 0, 1] if mode == "all" else [1, 1, 0, 1])


def test_a_pair_may_have_more_than_255_synapses():
    many = rows(*((synapse, 10, 30, 1) for synapse in range(1, 301)))
    assert matrix(Rule(), [many])[0] == [0, 0, 300]


def test_no_synapses_at_all_give_zeros_as_scikit_learn_does():
    nothing = connectivity(list, NEURONS, Rule())
    assert nothing.matrix.shape == (3, 3) and not len(nothing.n_pairs)
    found = score_pairs(prediction=nothing.matrix, truth=nothing.matrix)
    assert found == (0.0, 0.0, 0.0, 3, 0, 0, 0)
    assert draw_matrices(prediction=nothing.matrix, truth=nothing.matrix).shape[2] == 3


def test_edges_name_both_neurons_and_both_numbers():
    truth = sparse.csr_array([[0, 2, 0], [2, 0, 1], [0, 1, 0]])
    prediction = sparse.csr_array([[0, 3, 1], [3, 0, 0], [1, 0, 0]])
    neurons = Neurons(np.array([30, 10, 2**63], np.uint64), np.array([9, 8, 7]))
    found = edges(neurons, truth=truth, prediction=prediction)
    assert {name: column.tolist() for name, column in found.items()} == {
        "a": [10, 10, 30], "b": [30, 2**63, 2**63], "truth": [2, 1, 0], "prediction": [3, 0, 1],
    }
    one_way = sparse.csr_array([[0, 0, 0], [5, 0, 0], [0, 0, 0]])
    found = edges(neurons, truth=one_way, prediction=0 * one_way, directed=True)
    assert [found[k].tolist() for k in ("pre", "post", "truth", "prediction")] == [[10], [30], [5], [0]]


def test_a_picture_shows_connected_neurons_by_who_found_them():
    truth = sparse.csr_array(([1, 1, 1, 1], ([0, 5, 5, 7], [5, 0, 7, 5])), shape=(5000, 5000))
    prediction = sparse.csr_array(([3, 3, 1, 1], ([0, 5, 0, 7], [5, 0, 7, 0])), shape=(5000, 5000))
    picture = draw_matrices(truth=truth, prediction=prediction)
    step = len(picture) // 3
    small = picture[step // 2::step, step // 2::step]
    assert (small[0, 1] == 0).all() and (small[0, 0] == 255).all()
    assert small[1, 2].tolist() == [0, 114, 178] and small[0, 2].tolist() == [213, 94, 0]
