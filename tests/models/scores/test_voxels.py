"""Validation scores on cases that can be counted by hand."""

import numpy as np

from em_blocks.models.scores import voxels as scores


def test_average_precision_of_a_perfect_and_of_a_reversed_order():
    probability = np.array([0.1, 0.2, 0.8, 0.9])
    assert scores.average_precision(probability, probability > 0.5) == 1
    reversed_order = scores.average_precision(probability, probability < 0.5)
    np.testing.assert_allclose(reversed_order, 0.5 * (1 / 3 + 2 / 4))


def test_average_precision_of_a_constant_is_the_share_of_positives():
    positive = np.arange(10) < 3
    np.testing.assert_allclose(scores.average_precision(np.full(10, 0.4), positive), 0.3)


def test_average_precision_without_positives_is_undefined():
    assert np.isnan(scores.average_precision(np.array([0.5]), np.array([False])))


def test_f1_counts_hits_twice():
    called, positive = np.array([1, 1, 1, 0], bool), np.array([1, 0, 1, 1], bool)
    np.testing.assert_allclose(scores.f1(called, positive), 2 * 2 / 6)
    assert scores.f1(~called & called, ~called & called) == 1


def test_balanced_cross_entropy_weighs_both_classes_alike():
    probability = np.array([0.5] * 9 + [0.25])
    positive = np.arange(10) < 9
    expected = -0.5 * (np.log(0.5) + np.log(0.75))
    np.testing.assert_allclose(scores.balanced_cross_entropy(probability, positive), expected)


def test_agglomeration_of_perfect_affinities_is_the_truth_and_prints_nothing(capfd):
    truth = np.ones((8, 12, 12), np.int64)
    truth[:, 6:] = 2
    truth[:, 6:, 6:] = 3
    affinities = np.ones((3, *truth.shape), np.float32)
    affinities[1, :, 6] = 0
    affinities[2, :, 6:, 6] = 0
    voi = scores.agglomeration_voi(affinities, truth)
    assert sum(voi) < 0.05
    assert capfd.readouterr().out == ""
