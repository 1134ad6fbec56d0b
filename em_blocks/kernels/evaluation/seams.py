"""What cutting a volume into tiles costs: a segmentation at a seam beside one without the seam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cc3d
import numpy as np

from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.evaluation.segmentation_scores import Voi, variation_of_information


class Comparison(NamedTuple):
    """A stored segmentation beside one of the same box that knows no seam.

    Pairs are voxels that touch across the middle plane; those with background (0) in either
    segmentation are not counted.

    Attributes
    ----------
    pairs : int
        Counted pairs.
    joined : int
        Those of one object without the seam.
    split : int
        Those among them of two objects in the stored segmentation.
    merged : int
        Those of two objects without the seam, but of one in the stored segmentation.
    voi : Voi
        Of the whole box, bits; the one without the seam counts as truth.
    """

    pairs: int
    joined: int
    split: int
    merged: int
    voi: Voi

    @property
    def apart(self) -> int:
        """Pairs of two objects without the seam."""
        return self.pairs - self.joined


class Estimate(NamedTuple):
    """A figure from a sample, and how far it may be off."""

    value: float
    error: float  # standard error; nan of fewer than two samples


def compare(stored: np.ndarray, seamless: np.ndarray, *, axis: int, plane: int) -> Comparison:
    """Compare two segmentations of one box, across a plane and as a whole.

    Of both only the connected parts within the box are compared: parts of a stored object may be
    joined far outside, which a window cannot know, and which is no matter of this seam.

    Parameters
    ----------
    stored, seamless : (z, y, x) int array
        0 is background.
    axis, plane : int
        The plane lies before voxel `plane` along `axis`.

    Raises
    ------
    ValueError
        If shapes differ, or the plane does not lie within the box.
    """
    stored, seamless = map(_parts, (stored, seamless))
    known, same_stored, same = _across(stored, seamless, axis, plane)
    table = count_overlaps(segmentation=stored, truth=seamless)
    return Comparison(
        pairs=int(known.sum()), joined=int(same.sum()), split=int((same & ~same_stored).sum()),
        merged=int((known & ~same & same_stored).sum()),
        voi=variation_of_information(table.without(truth=[0], segmentation=[0])),
    )


def disagreement(stored: np.ndarray, seamless: np.ndarray, *, axis: int, plane: int) -> np.ndarray:
    """Mark pairs that `compare` found split or merged: bool, the two axes of the plane."""
    known, same_stored, same = _across(_parts(stored), _parts(seamless), axis, plane)
    return known & (same_stored != same)


def renamed_like(labels: np.ndarray, like: np.ndarray) -> np.ndarray:
    """`labels` with ids of `like`: those that share the most voxels get the same one.

    Parameters
    ----------
    labels, like : (z, y, x) int array
        0 stays 0.

    Returns
    -------
    (z, y, x) uint64 array
        Objects that found no partner have ids that `like` has not.
    """
    table = count_overlaps(segmentation=labels, truth=like)
    names, taken, fresh = {0: 0}, {0}, int(like.max(initial=0))
    order = np.argsort(-table.voxels, kind="stable")
    for one, other in zip(table.segmentation[order], table.truth[order], strict=True):
        if int(one) not in names and int(other) not in taken:
            names[int(one)] = int(other)
            taken.add(int(other))
    ids, places = np.unique(labels, return_inverse=True)
    for number, one in enumerate(ids.tolist()):
        names.setdefault(one, fresh + 1 + number)
    return np.array([names[one] for one in ids.tolist()], np.uint64)[places.reshape(labels.shape)]


def _parts(labels: np.ndarray) -> np.ndarray:
    return cc3d.connected_components(np.ascontiguousarray(labels), connectivity=6)


def _across(
    stored: np.ndarray, seamless: np.ndarray, axis: int, plane: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per pair of voxels: whether it counts, and whether it is of one object in either."""
    if stored.shape != seamless.shape or not 0 < plane < stored.shape[axis]:
        raise ValueError(
            f"no plane {plane} along axis {axis} of boxes {stored.shape} and {seamless.shape}"
        )
    before, after = ((slice(None),) * axis + (at,) for at in (plane - 1, plane))
    known = np.ones(stored[before].shape, bool)
    for labels in (stored, seamless):
        known &= (labels[before] > 0) & (labels[after] > 0)
    return known, *(known & (labels[before] == labels[after]) for labels in (stored, seamless))


def ratio(counts: Sequence[float], totals: Sequence[float]) -> Estimate:
    """``sum(counts) / sum(totals)`` of windows drawn at random.

    Pairs of one window are anything but independent, so the error is that between windows: a
    ratio estimator, linearised (Cochran 1977, Sampling Techniques, chapter 6).
    """
    value, residuals = _ratio(counts, totals)
    return Estimate(value, _error(residuals))


def ratio_difference(
    counts: Sequence[float], totals: Sequence[float], other_counts: Sequence[float],
    other_totals: Sequence[float],
) -> Estimate:
    """A `ratio` less another one, windows in pairs: what both share does not blur the difference."""
    value, residuals = _ratio(counts, totals)
    other, other_residuals = _ratio(other_counts, other_totals)
    return Estimate(value - other, _error(residuals - other_residuals))


def _ratio(counts: Sequence[float], totals: Sequence[float]) -> tuple[float, np.ndarray]:
    """The ratio, and by how much every window moves it, times the number of windows."""
    counts, totals = np.asarray(counts, float), np.asarray(totals, float)
    if not totals.sum():
        return float("nan"), np.full(len(totals), np.nan)
    value = counts.sum() / totals.sum()
    return float(value), (counts - value * totals) / totals.mean()


def _error(residuals: np.ndarray) -> float:
    n = len(residuals)
    return float(np.sqrt((residuals**2).sum() / (n - 1) / n)) if n > 1 else float("nan")
