"""Intervals of scores by the bootstrap: objects are drawn again and again, with replacement."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from em_blocks.kernels.evaluation.contingency import Contingency
from em_blocks.kernels.evaluation.instances.errors import relations
from em_blocks.kernels.evaluation.object_matching import ObjectScores, Overlaps

LEVEL = 0.95
DRAWS = 1000
_SEED = 0
"""Of the draws, so that the same volumes give the same intervals."""

_ROWS = "found", "right", "missed", "false", "iou", "both", "predicted_only", "true_only"


class Intervals(NamedTuple):
    """Limits between which a score lies in 95 % of all draws that define it; None without any.

    Attributes
    ----------
    groups : int
        What was drawn: true and predicted objects that belong together.
    limits : dict of str to (low, high)
        precision, recall, fscore, average_precision, panoptic_quality, and the scores of voxels
        voxel_precision, voxel_recall, voxel_fscore and voxel_iou.
    """

    groups: int
    limits: dict[str, tuple[float, float] | None]


def bootstrap(table: Contingency, found: Overlaps, scores: ObjectScores) -> Intervals:
    """Return intervals of the scores of objects and voxels.

    Objects that match, and those of a split or a merge, are drawn together, as they are right or
    wrong together. Groups that lie near each other are drawn as if they were independent: where they
    are not, the true intervals are wider.

    Parameters
    ----------
    table : Contingency
        Of all voxels that count.
    """
    totals = _totals(table, found, scores)
    n = len(totals)
    if n < 2:
        return Intervals(n, dict.fromkeys(_scores_of(np.ones((1, len(_ROWS))))))
    rng = np.random.default_rng(_SEED)
    drawn = np.stack([
        np.bincount(rng.integers(0, n, n), minlength=n) @ totals for _ in range(DRAWS)
    ])
    return Intervals(n, {name: _limits(values) for name, values in _scores_of(drawn).items()})


def _limits(values: np.ndarray) -> tuple[float, float] | None:
    """Return the limits in the draws in which a score is defined; None if there is no such draw."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _scores_of(drawn: np.ndarray) -> dict[str, np.ndarray]:
    """Return every score of every draw, NaN where it is undefined."""
    found, right, missed, false, iou, both, predicted, true = drawn.T
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = right / (right + false), found / (found + missed)
        return {
            "precision": precision, "recall": recall,
            "fscore": _fscore(precision, recall),
            "average_precision": right / (right + false + missed),
            "panoptic_quality": iou / (right + (false + missed) / 2),
            "voxel_precision": both / (both + predicted), "voxel_recall": both / (both + true),
            "voxel_fscore": 2 * both / (2 * both + predicted + true),
            "voxel_iou": both / (both + predicted + true),
        }


def _fscore(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Return the harmonic mean: 0 where only one side has objects."""
    values = 2 * precision * recall / (precision + recall)
    neither = np.isnan(precision) & np.isnan(recall)
    return np.where(neither, np.nan, np.nan_to_num(values))


def _totals(table: Contingency, found: Overlaps, scores: ObjectScores) -> np.ndarray:
    """Return the counts of `_ROWS` of every group that has any: (groups, 8)."""
    truth_ids = np.unique(np.append(table.truth, np.uint64(0)))
    prediction_ids = np.unique(np.append(table.segmentation, np.uint64(0)))
    # Places of compared objects among all: those that are too small have voxels too.
    rows = np.searchsorted(truth_ids, found.truth_ids)
    columns = np.searchsorted(prediction_ids, found.prediction_ids) + len(truth_ids)
    n = len(truth_ids) + len(prediction_ids)
    group = _groups(found, scores, rows, columns, n)
    totals = np.zeros((n, len(_ROWS)))
    _add_objects(totals, group, scores, rows, columns)
    iou = _iou_of_matched(found, scores)
    np.add.at(totals[:, 4], group[rows], iou)
    _add_voxels(totals, group, table, truth_ids, prediction_ids)
    return totals[totals.any(axis=1)]


def _groups(
    found: Overlaps, scores: ObjectScores, rows: np.ndarray, columns: np.ndarray, n: int
) -> np.ndarray:
    """Return the group of every object: those that match or lie mainly in each other share one."""
    parts, pieces = relations(found)
    edges = [
        (rows[mine], columns[theirs[mine]])
        for theirs in (scores.matched_truth, parts.main) for mine in [theirs >= 0]
    ] + [
        (rows[theirs[mine]], columns[mine])
        for theirs in (scores.matched_prediction, pieces.main) for mine in [theirs >= 0]
    ]
    a, b = (np.concatenate(ends) for ends in zip(*edges, strict=True))
    graph = sparse.coo_array((np.ones(len(a)), (a, b)), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def _add_objects(
    totals: np.ndarray, group: np.ndarray, scores: ObjectScores, rows: np.ndarray, columns: np.ndarray
) -> None:
    for places, matched, counted, right, wrong in (
        (rows, scores.matched_truth, scores.counted_truth, 0, 2),
        (columns, scores.matched_prediction, scores.counted_prediction, 1, 3),
    ):
        for column, chosen in ((right, matched >= 0), (wrong, matched < 0)):
            np.add.at(totals[:, column], group[places[counted & chosen]], 1)


def _iou_of_matched(found: Overlaps, scores: ObjectScores) -> np.ndarray:
    """Return the IoU of every true object with its partner; 0 without one, or if it is left out."""
    iou = np.zeros(len(found.truth_ids))
    paired = scores.matched_truth[found.rows] == found.columns
    iou[found.rows[paired]] = found.iou[paired]
    return np.where(scores.counted_truth, iou, 0)


def _add_voxels(
    totals: np.ndarray, group: np.ndarray, table: Contingency, truth_ids: np.ndarray,
    prediction_ids: np.ndarray,
) -> None:
    """Add voxels to the group of their true object, else of their predicted one."""
    true, predicted = table.truth != 0, table.segmentation != 0
    row = np.searchsorted(truth_ids, table.truth)
    column = np.searchsorted(prediction_ids, table.segmentation) + len(truth_ids)
    for number, chosen, place in (
        (5, true & predicted, row), (6, predicted & ~true, column), (7, true & ~predicted, row)
    ):
        np.add.at(totals[:, number], group[place[chosen]], table.voxels[chosen])
