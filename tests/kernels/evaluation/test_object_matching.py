"""Matched objects: against trying all assignments, and by hand."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.evaluation.object_matching import (
    by_size,
    match_objects,
    overlaps,
    score_voxels,
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
    assert scores.tp == pairs and round(scores.mean_iou * pairs, 6) == round(total, 6)
    assert (scores.fp, scores.fn) == (m - pairs, n - pairs)
    for row, column in enumerate(scores.matched_truth):
        assert column < 0 or (
            scores.matched_prediction[column] == row and iou[row, column] >= least
        )
    np.testing.assert_allclose(
        [scores.precision, scores.recall, scores.average_precision],
        [pairs / max(m, 1), pairs / max(n, 1), pairs / max(n + m - pairs, 1)],
    )


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
    background = (~p & ~t).sum() / max(1, (~p | ~t).sum())
    np.testing.assert_allclose(found, [
        both / max(1, p.sum()), both / max(1, t.sum()), 2 * both / max(1, p.sum() + t.sum()),
        both / max(1, either), (both / max(1, either) + background) / 2,
    ])


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
        (0, 3, 0, 0, 1, 0), (3, 5, 0, 0, 1, 0), (5, None, 1, 1, 1, 1)
    ]


def test_nothing_at_all_scores_zero():
    nothing = np.zeros((1, 2, 2), np.uint8)
    scores = match_objects(found_in(nothing, nothing), iou=0.5)
    assert scores[1:9] == (0, 0, 0, 0, 0, 0, 0, 0)
