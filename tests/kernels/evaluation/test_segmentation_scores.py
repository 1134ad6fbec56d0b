"""Scores on cases that can be counted by hand, against slow references, and by their laws."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from em_blocks.kernels.evaluation.contingency import EMPTY, count_overlaps
from em_blocks.kernels.evaluation.segmentation_scores import (
    AdaptedRand,
    Voi,
    adapted_rand,
    adapted_rand_cremi,
    evaluate,
    variation_of_information,
    worst_objects,
)

LABELS = hnp.arrays(np.int64, (3, 4, 5), elements=st.integers(0, 4))
SMALL = hnp.arrays(np.int64, 12, elements=st.integers(0, 3))


def table_of(segmentation, truth):
    return count_overlaps(segmentation=np.asarray(segmentation), truth=np.asarray(truth))


def voi_of(segmentation, truth) -> Voi:
    return variation_of_information(table_of(segmentation, truth))


def slow_voi(segmentation, truth):
    """H(segmentation | truth) and H(truth | segmentation), bits."""
    def entropy(items):
        share = np.array([items.count(item) for item in set(items)]) / len(items)
        return -(share * np.log2(share)).sum()

    segmentation, truth = segmentation.ravel().tolist(), truth.ravel().tolist()
    joint = entropy(list(zip(segmentation, truth, strict=True)))
    return joint - entropy(truth), joint - entropy(segmentation)


def slow_adapted_rand(segmentation, truth):
    pairs = list(itertools.combinations(range(len(truth)), 2))
    called = {(i, j) for i, j in pairs if segmentation[i] == segmentation[j]}
    true = {(i, j) for i, j in pairs if truth[i] == truth[j]}
    precision = len(called & true) / len(called) if called else 1
    recall = len(called & true) / len(true) if true else 1
    f_score = 2 * len(called & true) / (len(called) + len(true)) if called or true else 1
    return 1 - f_score, precision, recall


@given(LABELS, LABELS)
def test_voi_is_the_slow_reference(segmentation, truth):
    np.testing.assert_allclose(
        voi_of(segmentation, truth), slow_voi(segmentation, truth), atol=1e-9
    )


@given(SMALL, SMALL)
def test_adapted_rand_is_the_slow_count_of_pairs(segmentation, truth):
    found = adapted_rand(table_of(segmentation, truth))
    np.testing.assert_allclose(found, slow_adapted_rand(segmentation, truth), atol=1e-12)


@given(LABELS, LABELS)
def test_scores_are_those_of_scikit_image(segmentation, truth):
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is a reference only")
    truth.flat[:2] = 1  # scikit-image divides by zero where nothing is left
    segmentation.flat[:2] = 1
    scores = evaluate(lambda: [table_of(segmentation, truth)], ignore_truth=[0])
    # (truth, segmentation) there, and all voxels where truth is 0 are left out.
    voi = metrics.variation_of_information(truth, segmentation, ignore_labels=[0])
    np.testing.assert_allclose(scores.voi, voi, atol=1e-9)
    rand = metrics.adapted_rand_error(truth, segmentation, ignore_labels=[0])
    np.testing.assert_allclose(
        scores.arand, AdaptedRand(rand[0], precision=rand[2], recall=rand[1]), atol=1e-9
    )


def slow_adapted_rand_cremi(segmentation, truth):
    """From the matrix of shared voxels, as the challenges define it; truth 0 does not count."""
    n = np.zeros((truth.max() + 1, segmentation.max() + 1))
    np.add.at(n, (truth.ravel(), segmentation.ravel()), 1)
    n = n[1:]
    alone = n[:, 0].sum() / truth.size
    joined = (n[:, 1:] ** 2).sum() + alone
    called = (n[:, 1:].sum(axis=0) ** 2).sum() + alone
    precision, recall = joined / called, joined / (n.sum(axis=1) ** 2).sum()
    return 1 - 2 * precision * recall / (precision + recall), precision, recall


@given(LABELS, LABELS)
def test_the_script_of_the_challenges_takes_voxels_of_segment_0_apart(segmentation, truth):
    truth.flat[:2] = 1  # it divides by zero where nothing is left
    segmentation.flat[:2] = 1
    found = evaluate(lambda: [table_of(segmentation, truth)], ignore_truth=[0]).arand_cremi
    np.testing.assert_allclose(found, slow_adapted_rand_cremi(segmentation, truth), atol=1e-9)
    kept = table_of(segmentation, truth).without(truth=[0])
    np.testing.assert_allclose(adapted_rand_cremi(kept, n_all=truth.size), found, atol=1e-12)


def test_both_errors_agree_on_large_objects_without_background_and_not_with_it():
    truth = np.repeat([1, 2], 5000)
    segmentation = np.repeat([1, 2, 3], [5000, 2500, 2500])
    whole = evaluate(lambda: [table_of(segmentation, truth)], ignore_truth=[0])
    assert whole.arand_cremi.error == pytest.approx(whole.arand.error, rel=1e-3)
    segmentation[5000:] = 0
    left_out = evaluate(lambda: [table_of(segmentation, truth)], ignore_truth=[0])
    assert left_out.arand.error == 0 and left_out.arand_cremi.error == pytest.approx(1 / 3, rel=1e-3)


def test_splits_and_merges_are_told_apart():
    one, two = [7, 7, 7, 7], [1, 1, 2, 2]
    assert voi_of(segmentation=two, truth=one) == Voi(split=1.0, merge=0.0)
    assert voi_of(segmentation=one, truth=two) == Voi(split=0.0, merge=1.0)
    assert adapted_rand(table_of(segmentation=two, truth=one)).precision == 1
    assert adapted_rand(table_of(segmentation=one, truth=two)).recall == 1


@given(LABELS)
def test_a_segmentation_equals_itself_by_any_names(labels):
    assert voi_of(labels, labels) == Voi(0, 0)
    assert adapted_rand(table_of(labels, labels)).error == 0
    np.testing.assert_allclose(voi_of(labels * 5 % 23, labels), 0, atol=1e-12)


@given(LABELS, LABELS)
def test_swapping_both_swaps_split_and_merge(segmentation, truth):
    there, back = voi_of(segmentation, truth), voi_of(truth, segmentation)
    np.testing.assert_allclose(there, back[::-1], atol=1e-12)
    a, b = adapted_rand(table_of(segmentation, truth)), adapted_rand(table_of(truth, segmentation))
    np.testing.assert_allclose(a, (b.error, b.recall, b.precision), atol=1e-12)


@given(LABELS, LABELS)
def test_a_table_scored_in_parts_gives_the_same_scores(segmentation, truth):
    tables = [table_of(s, t) for s, t in zip(segmentation, truth)]
    options = {"ignore_truth": [0], "ignore_segmentation": [1], "n_worst": 3}
    whole = evaluate(lambda: tables, **options)
    parts = evaluate(lambda: tables, **options, max_rows=5)
    np.testing.assert_allclose(parts.voi, whole.voi, atol=1e-12)
    np.testing.assert_allclose(parts.arand, whole.arand, atol=1e-12)
    np.testing.assert_allclose(parts.arand_cremi, whole.arand_cremi, atol=1e-12)
    for name in ("n_voxels", "n_ignored", "n_segments", "n_neurons"):
        assert getattr(parts, name) == getattr(whole, name)
    for name in ("worst_splits", "worst_merges"):
        ours, theirs = getattr(parts, name), getattr(whole, name)
        np.testing.assert_allclose([o.bits for o in ours], [o.bits for o in theirs])


@given(LABELS, LABELS)
def test_the_objects_together_are_all_of_voi(segmentation, truth):
    table = table_of(segmentation, truth)
    voi = variation_of_information(table)
    splits, merges = (worst_objects(table, side, n=99) for side in ("truth", "segmentation"))
    np.testing.assert_allclose(sum(o.bits for o in splits), voi.split, atol=1e-9)
    np.testing.assert_allclose(sum(o.bits for o in merges), voi.merge, atol=1e-9)


def test_the_worst_split_comes_first_with_its_largest_parts():
    truth = np.repeat([5, 6, 7], [8, 4, 4])
    segmentation = np.array([1, 1, 1, 1, 1, 2, 2, 3, 4, 4, 8, 8, 9, 9, 9, 9])
    worst = worst_objects(table_of(segmentation, truth), "truth", n=10)
    assert [(o.id, o.voxels, o.n_parts) for o in worst] == [(5, 8, 3), (6, 4, 2)]
    assert worst[0].largest == ((1, 5), (2, 2), (3, 1))
    np.testing.assert_allclose(worst[1].bits, 4 / 16 * 1)
    merges = worst_objects(table_of(truth, segmentation), "segmentation", n=1)
    assert merges == worst[:1]


def test_background_of_the_segmentation_is_a_segment_unless_it_is_ignored():
    truth, segmentation = np.array([1, 1, 1, 1, 0, 0]), np.array([0, 0, 3, 3, 0, 9])
    table = table_of(segmentation, truth)
    scores = evaluate(lambda: [table], ignore_truth=[0])
    assert scores.voi == Voi(split=1.0, merge=0.0)
    assert (scores.n_voxels, scores.n_ignored, scores.n_segments, scores.n_neurons) == (4, 2, 2, 1)
    without = evaluate(lambda: [table], ignore_truth=[0], ignore_segmentation=[0])
    assert without.voi == Voi(0, 0) and (without.n_voxels, without.n_ignored) == (2, 4)
    all_voxels = evaluate(lambda: [table], ignore_truth=[])
    assert all_voxels.n_ignored == 0 and all_voxels.n_neurons == 2


def test_no_voxels_have_no_errors():
    scores = evaluate(lambda: [EMPTY], ignore_truth=[0])
    assert scores.voi == Voi(0, 0) and scores.arand == AdaptedRand(0, 1, 1)
    assert scores.n_voxels == 0 and scores.worst_splits == scores.worst_merges == ()
    assert evaluate(list, ignore_truth=[0]) == scores


def test_voxels_of_a_whole_brain_do_not_overflow():
    from em_blocks.kernels.evaluation.contingency import Contingency

    ids, voxels = np.array([1, 2], np.uint64), np.array([10**16, 10**16])
    scores = evaluate(lambda: [Contingency(ids, ids[::-1], voxels)], ignore_truth=[])
    assert scores.voi == Voi(0, 0) and scores.arand.error == 0 and scores.n_voxels == 2 * 10**16
