"""Scores of predicted voxels against labels."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

import numpy as np

from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.evaluation.segmentation_scores import Voi, variation_of_information

DIRECT = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
MEAN_AFFINITY = "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>"


def mean_of_known(values: Sequence[float]) -> float:
    """Return the mean of the values that are no nan; nan if all are."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def average_precision(probability: np.ndarray, positive: np.ndarray, bins: int = 1000) -> float:
    """Return the area under the precision-recall curve, to 1 / `bins` in probability.

    Parameters
    ----------
    probability : (n,) float array
        0..1, high where the class is predicted.
    positive : (n,) bool array

    Returns
    -------
    float
        nan if nothing is positive.
    """
    place = np.clip((probability * bins).astype(int), 0, bins - 1)
    hits = np.bincount(place[positive], minlength=bins)[::-1].cumsum()
    called = np.bincount(place, minlength=bins)[::-1].cumsum()
    if hits[-1] == 0:
        return float("nan")
    precision = hits / np.maximum(called, 1)
    recall = hits / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def f1(predicted: np.ndarray, positive: np.ndarray) -> float:
    """Return the harmonic mean of precision and recall of two bool arrays (also known as Dice)."""
    called = np.count_nonzero(predicted) + np.count_nonzero(positive)
    return 2 * np.count_nonzero(predicted & positive) / called if called else 1.0


def balanced_cross_entropy(probability: np.ndarray, positive: np.ndarray) -> float:
    """Return the mean of the two classes' mean negative log likelihoods, nats; nan without any voxel."""
    if not len(positive):
        return float("nan")
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    classes = (-np.log(clipped[positive]), -np.log(1 - clipped[~positive]))
    return float(np.mean([values.mean() for values in classes if values.size]))


def agglomeration_voi(
    affinities: np.ndarray, labels: np.ndarray, thresholds: Sequence[float] = (0.2, 0.35, 0.5, 0.65)
) -> Voi:
    """Return the best VOI over `thresholds` of a watershed with mean-affinity agglomeration.

    Parameters
    ----------
    affinities : (3, z, y, x) float32 array
        To the direct neighbours at `DIRECT`.
    labels : (z, y, x) int array
        Truth, 0 unknown.
    """
    import waterz  # of the extra [train]; the scores above need no more than numpy

    with _silent():
        steps = waterz.agglomerate(
            np.ascontiguousarray(affinities, np.float32),
            thresholds=list(thresholds),
            aff_threshold_low=0.1,
            aff_threshold_high=0.98,
            scoring_function=MEAN_AFFINITY,
            discretize_queue=256,
        )
        tables = (count_overlaps(segmentation=np.asarray(s), truth=labels) for s in steps)
        vois = [variation_of_information(table.without(truth=[0])) for table in tables]
    return min(vois, key=sum)


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what waterz prints, from Python and from C++."""
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
