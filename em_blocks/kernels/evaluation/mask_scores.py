"""Scores of masks voxel by voxel: counts that add up over blocks, sections and thresholds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Confusion(NamedTuple):
    """Voxels that a prediction and truth call object or background.

    Attributes
    ----------
    tp, fp, fn, tn : int
        Predicted and true, predicted only, true only, neither.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def dice(self) -> float | None:
        """Harmonic mean of precision and recall, also known as F1; None without any object."""
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def jaccard(self) -> float | None:
        """Intersection over union; None without any object."""
        return _share(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float | None:
        """Share of the predicted voxels that are true; None if none is predicted."""
        return _share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        """Share of the true voxels that are predicted; None if none is true."""
        return _share(self.tp, self.tp + self.fn)

    def scores(self) -> dict[str, float | None]:
        """Return all four by name."""
        return {"dice": self.dice, "jaccard": self.jaccard, "precision": self.precision,
                "recall": self.recall}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def count_levels(
    levels: np.ndarray, truth: np.ndarray, *, n_levels: int, known: np.ndarray | None = None,
    included: np.ndarray | None = None,
) -> np.ndarray:
    """Count the voxels of every section by level, by truth, and by whether they are included.

    Parameters
    ----------
    levels : (z, y, x) unsigned array
        Thresholds that the prediction reaches, as of `levels_reached`: 0..n_levels - 1.
    truth : (z, y, x) bool array
        Whether a voxel is of the object.
    known : (z, y, x) bool array, optional
        Where truth is known: others are not counted at all.
    included : (z, y, x) bool array, optional
        Where a metric mask lets voxels count. Default: everywhere.

    Returns
    -------
    (z, n_levels, 2, 2) int64 array
        Indices: section, level, included (1) or excluded (0), object (1) or background (0). Counts
        of parts of a volume add up to those of the whole.
    """
    counts = np.zeros((len(levels), n_levels, 2, 2), np.int64)
    for section in range(len(levels)):
        inside = 1 if included is None else included[section].astype(np.int64)
        codes = 4 * levels[section].astype(np.int64) + 2 * inside + truth[section]
        codes = codes.ravel() if known is None else codes[known[section]]
        counts[section] = np.bincount(codes, minlength=4 * n_levels).reshape(n_levels, 2, 2)
    return counts


def confusions(counts: np.ndarray) -> list[Confusion]:
    """Return the confusion at every threshold.

    Parameters
    ----------
    counts : (n + 1, 2) int array
        Voxels by level (thresholds that they reach, 0..n) and by truth (0 background, 1 object).

    Returns
    -------
    list of n Confusion
        Item k calls the levels above k object.
    """
    background, positive = np.asarray(counts).T
    fp, tp = (np.cumsum(column[::-1])[::-1][1:].tolist() for column in (background, positive))
    n_background, n_positive = int(background.sum()), int(positive.sum())
    return [
        Confusion(tp=t, fp=f, fn=n_positive - t, tn=n_background - f)
        for t, f in zip(tp, fp, strict=True)
    ]
