"""Scores of a class, from counts that add up over the parts of a volume."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BINS = 256
"""Of probabilities: thresholds that are multiples of 1/256, with 1/2 among them, are exact."""
_UNIT = 2**16
"""Logarithms are added as whole multiples of its inverse, so that no sum depends on the parts."""
_LEAST = 1e-6


class ClassScores(NamedTuple):
    """Scores of one class; nan where it does not occur.

    Attributes
    ----------
    f1, jaccard, precision, recall : float
        Of the voxels with a probability of at least 0.5. F1 is also known as Dice.
    best_threshold, best_f1 : float
        The threshold with the highest F1, and of equal ones that next to 0.5.
    """

    f1: float
    jaccard: float
    precision: float
    recall: float
    best_threshold: float
    best_f1: float


def count_class(probability: np.ndarray, wanted: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Count the voxels of one class and of the rest by their probability.

    Parameters
    ----------
    probability : array of floats from 0 to 1
    wanted, known : bool arrays of the same shape
        Which voxels are of the class, and which of all count.

    Returns
    -------
    (2, 257) int64 array
        Of the rest, and of the class: voxels in every 256th of the probability, then the sum of the
        negative logarithms of the right answer's probability, in 65536ths.
    """
    rest, own = probability[known & ~wanted], probability[known & wanted]
    return np.stack([
        np.append(_histogram(rest), _surprise(1 - rest)), np.append(_histogram(own), _surprise(own))
    ])


def class_scores(counts: np.ndarray) -> ClassScores:
    """Score the sum of `count_class` of all parts; (2, 257) int64."""
    rest, own = counts[:, :BINS]
    if not own.sum():
        return ClassScores(*(float("nan"),) * 6)
    # Of every threshold k / 256: what is called the class, rightly and wrongly.
    hits, wrong = (values[::-1].cumsum()[::-1].astype(float) for values in (own, rest))
    f1 = 2 * hits / (hits + wrong + own.sum())
    distance = np.abs(np.arange(BINS) - BINS // 2)
    best = np.lexsort((distance, -f1))[0]
    half = BINS // 2
    called = hits[half] + wrong[half]
    return ClassScores(
        f1=float(f1[half]), jaccard=float(f1[half] / (2 - f1[half])),
        precision=float(hits[half] / called) if called else 0.0,
        recall=float(hits[half] / own.sum()),
        best_threshold=float(best / BINS), best_f1=float(f1[best]),
    )


def balanced_ce(counts: np.ndarray) -> float:
    """Compute the mean of both sides' mean negative log likelihoods, nats; nan without any voxel."""
    voxels, surprise = counts[:, :BINS].sum(1), counts[:, BINS] / _UNIT
    sides = surprise[voxels > 0] / voxels[voxels > 0]
    return float(sides.mean()) if sides.size else float("nan")


def _histogram(probability: np.ndarray) -> np.ndarray:
    place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    return np.bincount(place, minlength=BINS)


def _surprise(right: np.ndarray) -> int:
    logarithms = -np.log(np.clip(right.astype(np.float64), _LEAST, 1))
    return int(np.round(logarithms * _UNIT).astype(np.int64).sum())
