"""Intervals: against the laws of drawing, and a slow one of the same groups."""

import numpy as np

from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.evaluation.instances.bootstrap import _totals, bootstrap
from em_blocks.kernels.evaluation.object_matching import (
    LeftOut,
    match_objects,
    overlaps,
    score_voxels,
)

NAMES = {"precision", "recall", "fscore", "average_precision", "panoptic_quality",
         "voxel_precision", "voxel_recall", "voxel_fscore", "voxel_iou"}


def made(n, missed, false):
    """n objects of 4 voxels, the first of them missed, the last ones with a false one beside them."""
    truth = np.zeros((n, 10), np.uint32)
    truth[:, :4] = np.arange(1, n + 1)[:, None]
    prediction = truth.copy()
    prediction[:missed] = 0
    prediction[n - false :, 6:9] = np.arange(n + 1, n + false + 1)[:, None]
    return prediction, truth


def intervals(prediction, truth, iou=0.5, min_voxels=1, left_out=None):
    table = count_overlaps(segmentation=prediction, truth=truth)
    found = overlaps(table, min_voxels=min_voxels)
    scores = match_objects(found, iou=iou, left_out=left_out)
    return bootstrap(table, found, scores), scores, score_voxels(table), _totals(table, found, scores)


def test_intervals_are_those_of_the_binomial_law():
    """80 of 100 objects are found: the standard error of the share is 0.04."""
    found, scores, _, _ = intervals(*made(100, 20, 0))
    low, high = found.limits["recall"]
    assert scores.recall == 0.8 and found.groups == 100 and set(found.limits) == NAMES
    assert abs(low - 0.72) < 0.015 and abs(high - 0.88) < 0.015
    assert found.limits["precision"] == (1.0, 1.0)
    assert found.limits["voxel_recall"] == found.limits["recall"]
    # Pairs have an IoU of 1, and without false objects PQ is a function of the recall.
    np.testing.assert_allclose(
        found.limits["panoptic_quality"], [r / (r + (1 - r) / 2) for r in (low, high)], atol=2e-3
    )
    assert found.limits["average_precision"] == found.limits["recall"]


def test_more_objects_make_intervals_narrow():
    widths = [np.diff(intervals(*made(n, n // 10, n // 5))[0].limits["fscore"])[0]
              for n in (20, 200, 2000)]
    assert widths[0] > 2.5 * widths[1] > 6 * widths[2] > 0


def test_the_same_volumes_give_the_same_intervals():
    assert intervals(*made(30, 3, 5))[0] == intervals(*made(30, 3, 5))[0]


def test_totals_of_groups_are_the_scores():
    """Random labels: every object and every voxel is in one group."""
    rng = np.random.default_rng(0)
    for min_voxels in (1, 3):
        truth, prediction = rng.integers(0, 6, (2, 5, 9))
        _, scores, voxels, totals = intervals(prediction, truth, 0.2, min_voxels)
        found, right, missed, false, iou, both, predicted, true = totals.sum(axis=0)
        assert (found, right, missed, false) == (scores.tp, scores.tp, scores.fn, scores.fp)
        assert np.isclose(iou, (scores.mean_iou or 0) * scores.tp)
        assert np.isclose(both / (both + predicted + true), voxels.iou)
        assert np.isclose(both / (both + predicted), voxels.precision)


def test_pairs_that_are_left_out_have_no_iou_but_voxels():
    none = np.zeros(3, bool)
    left_out = LeftOut(np.array([True, False, False]), none, none)
    _, scores, _, totals = intervals(*made(3, 0, 0), left_out=left_out)
    assert scores.tp == 2 and totals.sum(axis=0).tolist() == [2, 2, 0, 0, 2, 12, 0, 0]


def test_objects_of_a_split_are_drawn_together():
    """Otherwise a draw could have a piece but not the object that it belongs to."""
    prediction = np.array([[1, 1, 2, 2, 0, 3, 0, 4]])
    truth = np.array([[1, 1, 1, 1, 0, 3, 5, 0]])
    _, _, _, totals = intervals(prediction, truth, iou=0.6)
    assert sorted(totals[:, :4].tolist()) == [
        [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 1, 2], [1, 1, 0, 0]
    ]


def test_without_two_groups_there_is_no_interval():
    one = np.ones((2, 2), np.uint8)
    found = intervals(one, one)[0]
    assert found.groups == 1 and found.limits == dict.fromkeys(NAMES)
    nothing = np.zeros((2, 2), np.uint8)
    assert intervals(nothing, nothing)[0].groups == 0


def test_draws_without_a_score_are_left_out():
    """A draw may have the missed object only, and so no precision; without predictions all have."""
    limits = intervals(np.array([[1, 0, 2]]), np.array([[1, 3, 0]]))[0].limits
    assert limits["precision"] == (0, 1) and limits["fscore"] == (0, 1)
    limits = intervals(np.array([[0, 0, 0]]), np.array([[1, 3, 0]]))[0].limits
    assert limits["precision"] is None and limits["recall"] == limits["fscore"] == (0, 0)
