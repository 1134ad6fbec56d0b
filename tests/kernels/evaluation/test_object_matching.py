"""Matched objects: against trying all assignments, and by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.evaluation.object_matching import (
    LeftOut,
    by_size,
    match_objects,
    overlaps,
    score_voxels,
    share,
)

LABELS = hnp.arrays(np.uint64, (2, 3, 5), elements=st.sampled_from([0, 1, 2, 3, 2**64 - 1]))


def found_in(prediction, truth, **options):
    return overlaps(count_overlaps(segmentation=prediction, truth=truth), **options)


def slow_iou(prediction, truth):
    """Every object with every other one, mask by mask."""
    return np.array([
        [((truth == t) & (prediction == p)).sum() / ((truth == t) | (prediction == p)).sum()
         for p in np.unique(prediction[prediction > 0])]
        for t in np.unique(truth[truth > 0])
    ])


def best_assignment(iou, least):
    """Most pairs, then the largest sum: all assignments are tried."""
    n, m = iou.shape
    if n > m:
        iou, n, m = iou.T, m, n
    best = (0, 0.0)
    for columns in itertools.permutations(range(m), n):
        values = [v for v in iou[range(n), columns] if v >= least]
        best = max(best, (len(values), round(sum(values), 9)))
    return best


@given(LABELS, LABELS, st.sampled_from([0.01, 0.2, 0.5, 1.0]))
def test_one_to_one_is_the_best_of_all_assignments(prediction, truth, least):
    found = found_in(prediction, truth)
    scores = match_objects(found, iou=least)
    n, m = len(np.unique(truth[truth > 0])), len(np.unique(prediction[prediction > 0]))
    iou = slow_iou(prediction, truth).reshape(n, m)
    pairs, total = best_assignment(iou, least)
    assert scores.tp == pairs and round((scores.mean_iou or 0) * pairs, 6) == round(total, 6)
    assert (scores.fp, scores.fn) == (m - pairs, n - pairs)
    for row, column in enumerate(scores.matched_truth):
        assert column < 0 or (
            scores.matched_prediction[column] == row and iou[row, column] >= least
        )
    assert scores.precision == share(pairs, m) and scores.recall == share(pairs, n)
    assert scores.average_precision == share(pairs, n + m - pairs)
    assert scores.fscore is None if n + m == 0 else np.isclose(scores.fscore, 2 * pairs / (n + m))
    if n + m:
        assert np.isclose(scores.panoptic_quality, 2 * total / (n + m))


@given(LABELS, LABELS, st.sampled_from([0.01, 0.2, 0.5]))
def test_by_overlap_an_object_is_right_if_any_overlaps_it_enough(prediction, truth, least):
    scores = match_objects(found_in(prediction, truth), iou=least, matching="overlap")
    n, m = len(np.unique(truth[truth > 0])), len(np.unique(prediction[prediction > 0]))
    iou = slow_iou(prediction, truth).reshape(n, m)
    assert scores.tp == (iou.max(axis=0, initial=0) >= least).sum()
    assert scores.fn == n - (iou.max(axis=1, initial=0) >= least).sum()
    for place, column in enumerate(scores.matched_truth):
        assert column < 0 or iou[place, column] == iou[place].max()


@settings(max_examples=30)
@given(LABELS, LABELS)
def test_scores_of_voxels(prediction, truth):
    found = score_voxels(count_overlaps(segmentation=prediction, truth=truth))
    p, t = prediction > 0, truth > 0
    both, either = (p & t).sum(), (p | t).sum()
    ious = [share(both, either), share((~p & ~t).sum(), (~p | ~t).sum())]
    assert found[:4] == (share(both, p.sum()), share(both, t.sum()),
                         share(2 * both, p.sum() + t.sum()), ious[0])
    assert found.voc == np.mean([iou for iou in ious if iou is not None])


def test_scores_are_those_of_scikit_learn():
    """Voxels as a classification; objects as a list of right, wrong and missing ones."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, (4, 6, 9)).repeat(2, axis=2)
    prediction = np.where(rng.random(truth.shape) < 0.2, rng.integers(0, 4, truth.shape), truth)
    found = score_voxels(count_overlaps(segmentation=prediction, truth=truth))
    y, x = truth.ravel() > 0, prediction.ravel() > 0
    assert np.isclose(found.precision, metrics.precision_score(y, x))
    assert np.isclose(found.recall, metrics.recall_score(y, x))
    assert np.isclose(found.fscore, metrics.f1_score(y, x))
    assert np.isclose(found.iou, metrics.jaccard_score(y, x))
    assert np.isclose(found.voc, metrics.jaccard_score(y, x, average="macro"))
    scores = match_objects(found_in(prediction, truth), iou=0.5)
    true = [1] * (scores.tp + scores.fn) + [0] * scores.fp
    called = [1] * scores.tp + [0] * scores.fn + [1] * scores.fp
    assert (scores.tp, scores.fp, scores.fn) == (2, 1, 0)
    assert np.isclose(scores.precision, metrics.precision_score(true, called))
    assert np.isclose(scores.fscore, metrics.f1_score(true, called))
    assert np.isclose(scores.average_precision, metrics.jaccard_score(true, called))


SPLIT = np.array([[[1, 1, 1, 2, 2, 2, 2, 2, 0, 5]]])
WHOLE = np.array([[[7, 7, 7, 7, 7, 7, 7, 7, 0, 0]]])


def test_a_split_object_counts_once_one_to_one_and_twice_by_overlap():
    found = found_in(SPLIT, WHOLE)
    scores = match_objects(found, iou=0.3)
    assert (scores.tp, scores.fp, scores.fn) == (1, 2, 0)
    assert found.prediction_ids[scores.matched_truth].tolist() == [2] and scores.mean_iou == 5 / 8
    scores = match_objects(found, iou=0.3, matching="overlap")
    assert (scores.tp, scores.fp, scores.fn, scores.recall) == (2, 1, 0, 1.0)


def test_small_objects_are_left_out_on_both_sides():
    found = found_in(SPLIT, WHOLE, min_voxels=4)
    assert found.prediction_ids.tolist() == [2] and found.truth_ids.tolist() == [7]
    assert found.iou.tolist() == [5 / 8]
    assert len(found_in(SPLIT, WHOLE, min_voxels=9).truth_ids) == 0


def test_objects_are_counted_in_bins_of_size():
    found = found_in(SPLIT, WHOLE)
    bins = by_size(found, match_objects(found, iou=0.5), [3, 5])
    assert [tuple(bin) for bin in bins] == [
        (0, 3, 0, 0, 1, 0, 0.0, None, 0.0), (3, 5, 0, 0, 1, 0, 0.0, None, 0.0),
        (5, None, 1, 1, 1, 1, 1.0, 1.0, 1.0),
    ]


def test_a_pair_is_in_the_bin_of_its_true_object_and_a_false_one_in_its_own():
    """3 of 4 voxels are found: the prediction is smaller than the limit, its partner is not."""
    found = found_in(np.array([[[1, 1, 1, 0, 2, 2]]]), np.array([[[5, 5, 5, 5, 0, 0]]]))
    small, large = by_size(found, match_objects(found, iou=0.5), [4])
    assert tuple(small)[2:6] == (0, 0, 1, 0) and tuple(large)[2:6] == (1, 1, 1, 1)
    assert (large.low, large.high, large.fscore) == (4, None, 1.0)
    assert (small.precision, small.recall) == (0.0, None)


# -- objects that are left out ---------------------------------------------------------------


def left_out(truth, truth_unmatched, prediction_unmatched):
    return LeftOut(*(np.array(values, bool) for values in
                     (truth, truth_unmatched, prediction_unmatched)))


THREE = np.array([[[1, 1, 0, 2, 2, 0, 3, 3]]])
SHIFTED = np.array([[[1, 1, 0, 0, 0, 7, 0, 8]]])


def test_left_out_objects_are_neither_right_nor_wrong():
    """1 matches 1, 3 matches 8 at 0.5; 2 is missed and 7 is false."""
    found = found_in(SHIFTED, THREE)
    counts = lambda s: (s.tp, s.fp, s.fn, s.n_truth, s.n_prediction)  # noqa: E731
    assert counts(match_objects(found, iou=0.5)) == (2, 1, 1, 3, 3)
    scores = match_objects(found, iou=0.5, left_out=left_out([1, 0, 0], [0, 0, 0], [0, 0, 0]))
    assert counts(scores) == (1, 1, 1, 2, 2) and scores.mean_iou == 0.5
    assert scores.counted_truth.tolist() == [False, True, True]
    assert scores.counted_prediction.tolist() == [False, True, True]
    scores = match_objects(found, iou=0.5, left_out=left_out([0, 0, 0], [1, 1, 0], [1, 1, 1]))
    assert counts(scores) == (2, 0, 0, 2, 2) and scores.fscore == 1.0
    assert scores.panoptic_quality == scores.mean_iou == 0.75


def test_left_out_objects_are_in_no_bin():
    found = found_in(SHIFTED, THREE)
    scores = match_objects(found, iou=0.5, left_out=left_out([1, 0, 0], [0, 1, 0], [0, 1, 0]))
    assert tuple(by_size(found, scores, [])[0])[2:6] == (1, 1, 1, 1)


def test_a_score_of_nothing_is_none():
    nothing, one = np.zeros((1, 2, 2), np.uint8), np.ones((1, 2, 2), np.uint8)
    scores = match_objects(found_in(nothing, nothing), iou=0.5)
    assert scores[1:7] == (None,) * 6 and scores[7:12] == (0, 0, 0, 0, 0)
    scores = match_objects(found_in(nothing, one), iou=0.5)
    assert scores[1:7] == (None, 0.0, 0.0, 0.0, 0.0, None) and scores.fn == 1
    scores = match_objects(found_in(one, nothing), iou=0.5)
    assert scores[1:7] == (0.0, None, 0.0, 0.0, 0.0, None) and scores.fp == 1
    scores = match_objects(found_in(one, one), iou=0.5, matching="overlap")
    assert scores.panoptic_quality is None and scores.fscore == 1.0


def test_figures_are_the_numbers_without_the_arrays():
    figures = match_objects(found_in(SPLIT, WHOLE), iou=0.3).figures()
    assert figures["tp"] == 1 and "matched_truth" not in figures and "counted_truth" not in figures
