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
    shared : (k,) int64 array
        Voxels of both.
    iou : (k,) float64 array
        Shared voxels over voxels of either.
    """

    truth_ids: np.ndarray
    truth_voxels: np.ndarray
    prediction_ids: np.ndarray
    prediction_voxels: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    shared: np.ndarray
    iou: np.ndarray


class LeftOut(NamedTuple):
    """Objects of which too little is known to call them wrong.

    Attributes
    ----------
    truth : (n,) bool array
        Never counted, and neither are the predicted objects that match them.
    truth_unmatched, prediction_unmatched : (n,) and (m,) bool arrays
        Not counted unless they match.
    """

    truth: np.ndarray
    truth_unmatched: np.ndarray
    prediction_unmatched: np.ndarray


class ObjectScores(NamedTuple):
    """Objects found at one least IoU. A score of nothing is None.

    Attributes
    ----------
    tp, fp, fn : int
        Predicted objects that are right and wrong, true ones that were not found. With the
        matching "overlap", the recall counts found true objects instead of `tp`.
    n_truth, n_prediction : int
        Objects that count: without those that are left out.
    average_precision : float
        tp / (tp + fp + fn), as in the Data Science Bowl 2018 (doi:10.1038/s41592-019-0612-7).
    panoptic_quality : float
        Sum of the IoU of matched pairs / (tp + fp / 2 + fn / 2), arXiv 1801.00868. None with the
        matching "overlap", which has no pairs.
    mean_iou : float
        Of matched pairs.
    matched_truth, matched_prediction : (n,) and (m,) int64 arrays
        Place of the partner, -1 without one.
    counted_truth, counted_prediction : (n,) and (m,) bool arrays
        False of objects that are left out.
    """

    iou: float
    precision: float | None
    recall: float | None
    fscore: float | None
    average_precision: float | None
    panoptic_quality: float | None
    mean_iou: float | None
    tp: int
    fp: int
    fn: int
    n_truth: int
    n_prediction: int
    matched_truth: np.ndarray
    matched_prediction: np.ndarray
    counted_truth: np.ndarray
    counted_prediction: np.ndarray

    def figures(self) -> dict:
        """Return all numbers by name."""
        return {key: value for key, value in self._asdict().items()
                if not isinstance(value, np.ndarray)}


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
        truth_ids, truth_voxels, prediction_ids, prediction_voxels, rows, columns, shared,
        shared / (truth_voxels[rows] + prediction_voxels[columns] - shared),
    )


def _sizes(ids: np.ndarray, voxels: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    objects, place = np.unique(ids, return_inverse=True)
    sizes = np.zeros(len(objects), np.int64)
    np.add.at(sizes, place, voxels)
    kept = (objects != 0) & (sizes >= least)
    return objects[kept], sizes[kept]


def match_objects(
    found: Overlaps, *, iou: float, matching: Matching = "one-to-one", left_out: LeftOut | None = None,
) -> ObjectScores:
    """Precision and recall of objects that overlap by at least `iou`.

    Parameters
    ----------
    iou : float
        Above 0, at most 1. Above 0.5 an object overlaps at most one other by so much.
    left_out : LeftOut, optional
        Default: every object counts.
    """
    enough = found.iou >= iou
    edges = found.rows[enough], found.columns[enough], found.iou[enough]
    assign = _one_to_one if matching == "one-to-one" else _best_of_each
    truth, prediction = assign(*edges, len(found.truth_ids), len(found.prediction_ids))
    counted = _counted(truth, prediction, left_out)
    paired = (truth[edges[0]] == edges[1]) & counted[0][edges[0]]
    return _scores(iou, matching, (truth, prediction), counted, edges[2][paired])


def _counted(
    truth: np.ndarray, prediction: np.ndarray, left_out: LeftOut | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return which objects of both sides count, given their partners."""
    if left_out is None:
        return np.ones(len(truth), bool), np.ones(len(prediction), bool)
    counted_truth = ~left_out.truth & ~(left_out.truth_unmatched & (truth < 0))
    unmatched = prediction < 0
    of_left_out = np.append(left_out.truth, False)[prediction]  # the last one is for -1
    return counted_truth, ~np.where(unmatched, left_out.prediction_unmatched, of_left_out)


def _scores(
    iou: float, matching: Matching, matched: tuple[np.ndarray, np.ndarray],
    counted: tuple[np.ndarray, np.ndarray], paired: np.ndarray,
) -> ObjectScores:
    found_true, tp = (int((m[c] >= 0).sum()) for m, c in zip(matched, counted, strict=True))
    n_truth, n_prediction = (int(c.sum()) for c in counted)
    fp, fn = n_prediction - tp, n_truth - found_true
    precision, recall = share(tp, n_prediction), share(found_true, n_truth)
    return ObjectScores(
        iou=iou, precision=precision, recall=recall, fscore=_fscore(precision, recall),
        average_precision=share(tp, tp + fp + fn),
        panoptic_quality=share(float(paired.sum()), tp + (fp + fn) / 2)
        if matching == "one-to-one" else None,
        mean_iou=float(paired.mean()) if len(paired) else None,
        tp=tp, fp=fp, fn=fn, n_truth=n_truth, n_prediction=n_prediction,
        matched_truth=matched[0], matched_prediction=matched[1],
        counted_truth=counted[0], counted_prediction=counted[1],
    )


def share(part: float, whole: float) -> float | None:
    """Return part / whole; None of nothing."""
    return part / whole if whole else None


def _fscore(precision: float | None, recall: float | None) -> float | None:
    """Return the harmonic mean; 0 if only one side has objects, None if none has."""
    if precision is None and recall is None:
        return None
    if not precision or not recall:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def _one_to_one(
    rows: np.ndarray, columns: np.ndarray, iou: np.ndarray, n: int, m: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hungarian method, for every group of objects that overlap each other."""
    truth, prediction = np.full(n, -1), np.full(m, -1)
    # Most objects overlap a single one, and above an IoU of 0.5 all do: these need no search.
    only = (np.bincount(rows, minlength=n)[rows] == 1) & (
        np.bincount(columns, minlength=m)[columns] == 1
    )
    truth[rows[only]], prediction[columns[only]] = columns[only], rows[only]
    rows, columns, iou = rows[~only], columns[~only], iou[~only]
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

    A matched predicted object belongs to the bin of its true partner, so that both sides of a pair
    are counted together; one without a partner belongs to the bin of its own size.

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
    precision: float | None
    recall: float | None
    fscore: float | None


def by_size(found: Overlaps, scores: ObjectScores, bounds: Sequence[int]) -> list[SizeBin]:
    """Count objects in bins of size, divided at the rising `bounds` (voxels)."""
    partner = scores.matched_prediction
    of_partner = np.append(found.truth_voxels, 0)[partner]
    sizes = np.where(partner >= 0, of_partner, found.prediction_voxels)
    return [
        _bin(low, high, _in_bin(found.truth_voxels, scores.matched_truth, scores.counted_truth,
                                low, high),
             _in_bin(sizes, partner, scores.counted_prediction, low, high))
        for low, high in zip([0, *bounds], [*bounds, None], strict=True)
    ]


def _bin(low: int, high: int | None, truth: tuple[int, int], predicted: tuple[int, int]) -> SizeBin:
    precision, recall = share(predicted[1], predicted[0]), share(truth[1], truth[0])
    return SizeBin(low, high, *truth, *predicted, precision, recall, _fscore(precision, recall))


def _in_bin(
    voxels: np.ndarray, matched: np.ndarray, counted: np.ndarray, low: int, high: int | None
) -> tuple[int, int]:
    inside = counted & (voxels >= low) & (voxels < (np.inf if high is None else high))
    return int(inside.sum()), int((matched[inside] >= 0).sum())


class VoxelScores(NamedTuple):
    """Voxels of any object against those of none. A score of nothing is None.

    Attributes
    ----------
    voc : float
        Mean of the IoU of foreground and of background (doi:10.1007/s11263-014-0733-5).
    """

    precision: float | None
    recall: float | None
    fscore: float | None
    iou: float | None
    voc: float | None


def score_voxels(table: Contingency) -> VoxelScores:
    """Foreground of both volumes, voxel by voxel."""
    called, true = table.segmentation != 0, table.truth != 0
    tp, fp, fn, tn = (
        int(table.voxels[(called == c) & (true == t)].sum())
        for c, t in ((True, True), (True, False), (False, True), (False, False))
    )
    ious = [share(tp, tp + fp + fn), share(tn, tn + fp + fn)]
    known = [iou for iou in ious if iou is not None]
    return VoxelScores(
        share(tp, tp + fp), share(tp, tp + fn), share(2 * tp, 2 * tp + fp + fn), ious[0],
        share(sum(known), len(known)),
    )
