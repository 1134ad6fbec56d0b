"""Which predicted objects are true ones: matching by the voxels that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components

from em_blocks.kernels.evaluation.contingency import Contingency

Matching = Literal["one-to-one", "overlap"]
"""One-to-one: as many pairs as possible, and of these the largest sum of IoU (Hungarian method).
Overlap: an object is right if any on the other side overlaps it enough; one may match several."""


class Overlaps(NamedTuple):
    """Objects of both sides, and how much each two of them overlap.

    Attributes
    ----------
    truth_ids, prediction_ids : (n,) and (m,) uint64 arrays
        Sorted; objects that are too small are left out.
    truth_voxels, prediction_voxels : (n,) and (m,) int64 arrays
        Their sizes.
    rows, columns : (k,) int64 arrays
        Places of the true and the predicted object of every two that share voxels.
    iou : (k,) float64 array
        Shared voxels over voxels of either.
    """

    truth_ids: np.ndarray
    truth_voxels: np.ndarray
    prediction_ids: np.ndarray
    prediction_voxels: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    iou: np.ndarray


class ObjectScores(NamedTuple):
    """Objects found at one least IoU.

    Attributes
    ----------
    tp, fp, fn : int
        Predicted objects that are right and wrong, true ones that were not found. With the
        matching "overlap", the recall counts found true objects instead of `tp`.
    average_precision : float
        tp / (tp + fp + fn), as in the Data Science Bowl 2018 (doi:10.1038/s41592-019-0612-7).
    mean_iou : float
        Of matched pairs.
    matched_truth, matched_prediction : (n,) and (m,) int64 arrays
        Place of the partner, -1 without one.
    """

    iou: float
    precision: float
    recall: float
    fscore: float
    average_precision: float
    mean_iou: float
    tp: int
    fp: int
    fn: int
    matched_truth: np.ndarray
    matched_prediction: np.ndarray


def overlaps(table: Contingency, *, min_voxels: int = 1) -> Overlaps:
    """Sizes and overlaps of all objects but 0.

    Parameters
    ----------
    table : Contingency
        Of all voxels of both volumes, background included: sizes are its sums.
    min_voxels : int
        Objects of fewer voxels are left out on both sides.
    """
    truth_ids, truth_voxels = _sizes(table.truth, table.voxels, min_voxels)
    prediction_ids, prediction_voxels = _sizes(table.segmentation, table.voxels, min_voxels)
    both = np.isin(table.truth, truth_ids) & np.isin(table.segmentation, prediction_ids)
    rows = np.searchsorted(truth_ids, table.truth[both])
    columns = np.searchsorted(prediction_ids, table.segmentation[both])
    shared = table.voxels[both]
    return Overlaps(
        truth_ids, truth_voxels, prediction_ids, prediction_voxels, rows, columns,
        shared / (truth_voxels[rows] + prediction_voxels[columns] - shared),
    )


def _sizes(ids: np.ndarray, voxels: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    objects, place = np.unique(ids, return_inverse=True)
    sizes = np.zeros(len(objects), np.int64)
    np.add.at(sizes, place, voxels)
    kept = (objects != 0) & (sizes >= least)
    return objects[kept], sizes[kept]


def match_objects(found: Overlaps, *, iou: float, matching: Matching = "one-to-one") -> ObjectScores:
    """Precision and recall of objects that overlap by at least `iou`.

    Parameters
    ----------
    iou : float
        Above 0, at most 1. Above 0.5 an object overlaps at most one other by so much.
    """
    enough = found.iou >= iou
    edges = found.rows[enough], found.columns[enough], found.iou[enough]
    assign = _one_to_one if matching == "one-to-one" else _best_of_each
    truth, prediction = assign(*edges, len(found.truth_ids), len(found.prediction_ids))
    tp, found_true = int((prediction >= 0).sum()), int((truth >= 0).sum())
    fp, fn = len(prediction) - tp, len(truth) - found_true
    precision, recall = _ratio(tp, tp + fp), _ratio(found_true, found_true + fn)
    paired = truth[edges[0]] == edges[1]
    return ObjectScores(
        iou=iou, precision=precision, recall=recall,
        fscore=_ratio(2 * precision * recall, precision + recall),
        average_precision=_ratio(tp, tp + fp + fn),
        mean_iou=float(edges[2][paired].mean()) if paired.any() else 0.0,
        tp=tp, fp=fp, fn=fn, matched_truth=truth, matched_prediction=prediction,
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _one_to_one(
    rows: np.ndarray, columns: np.ndarray, iou: np.ndarray, n: int, m: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hungarian method, for every group of objects that overlap each other."""
    truth, prediction = np.full(n, -1), np.full(m, -1)
    for group in _groups(rows, columns, n, m):
        r, i = np.unique(rows[group], return_inverse=True)
        c, j = np.unique(columns[group], return_inverse=True)
        gain = np.zeros((len(r), len(c)))
        # A further pair is worth more than any IoU of the others, so the number of pairs decides.
        gain[i, j] = min(len(r), len(c)) + iou[group]
        i, j = linear_sum_assignment(gain, maximize=True)
        real = gain[i, j] > 0
        truth[r[i[real]]], prediction[c[j[real]]] = c[j[real]], r[i[real]]
    return truth, prediction


def _groups(rows: np.ndarray, columns: np.ndarray, n: int, m: int) -> list[np.ndarray]:
    """Edges of each connected part of the graph of overlaps."""
    if not len(rows):
        return []
    graph = sparse.coo_array((np.ones(len(rows)), (rows, n + columns)), shape=(n + m, n + m))
    part = connected_components(graph, directed=False)[1][rows]
    order = np.argsort(part, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(part[order])) + 1)


def _best_of_each(
    rows: np.ndarray, columns: np.ndarray, iou: np.ndarray, n: int, m: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each object with the one that overlaps it most."""
    truth, prediction = np.full(n, -1), np.full(m, -1)
    order = np.argsort(iou, kind="stable")  # the last of equal places is kept
    truth[rows[order]], prediction[columns[order]] = columns[order], rows[order]
    return truth, prediction


class SizeBin(NamedTuple):
    """Objects of similar size.

    Attributes
    ----------
    low, high : int
        Voxels from `low` to below `high`; None: no end.
    """

    low: int
    high: int | None
    truth: int
    truth_found: int
    predictions: int
    predictions_right: int


def by_size(found: Overlaps, scores: ObjectScores, bounds: Sequence[int]) -> list[SizeBin]:
    """Count correct objects in bins of size, divided at the rising `bounds` (voxels)."""
    lows, highs = [0, *bounds], [*bounds, None]
    return [
        SizeBin(low, high, *_in_bin(found.truth_voxels, scores.matched_truth, low, high),
                *_in_bin(found.prediction_voxels, scores.matched_prediction, low, high))
        for low, high in zip(lows, highs, strict=True)
    ]


def _in_bin(voxels: np.ndarray, matched: np.ndarray, low: int, high: int | None) -> tuple[int, int]:
    inside = (voxels >= low) & (voxels < (np.inf if high is None else high))
    return int(inside.sum()), int((matched[inside] >= 0).sum())


class VoxelScores(NamedTuple):
    """Voxels of any object against those of none.

    Attributes
    ----------
    voc : float
        Mean of the IoU of foreground and of background (doi:10.1007/s11263-014-0733-5).
    """

    precision: float
    recall: float
    fscore: float
    iou: float
    voc: float


def score_voxels(table: Contingency) -> VoxelScores:
    """Foreground of both volumes, voxel by voxel."""
    called, true = table.segmentation != 0, table.truth != 0
    tp, fp, fn, tn = (
        int(table.voxels[(called == c) & (true == t)].sum())
        for c, t in ((True, True), (True, False), (False, True), (False, False))
    )
    iou, background = _ratio(tp, tp + fp + fn), _ratio(tn, tn + fp + fn)
    return VoxelScores(
        _ratio(tp, tp + fp), _ratio(tp, tp + fn), _ratio(2 * tp, 2 * tp + fp + fn), iou,
        (iou + background) / 2,
    )
