"""What every two objects of prediction and truth share: voxels, their sum of places, their box.

Tables of disjoint parts of a volume add up, so a volume is measured block by block, exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import fastremap
import numpy as np

from em_blocks.geometry import Triple
from em_blocks.kernels.evaluation.contingency import Contingency

Side = Literal["prediction", "truth"]

# As many rows wait to be merged as the sum has, or at least these: a merge sorts all rows.
_WAITING_ROWS = 1 << 19


class Pairs(NamedTuple):
    """Voxels by predicted object, true object and whether they count; each combination once.

    Attributes
    ----------
    prediction, truth : (n,) uint64 arrays
        Ids; 0 is background, and an id like any other here.
    counts : (n,) bool array
        False of voxels where truth is not known.
    voxels : (n,) int64 array
        Never 0.
    sums : (n, 3) int64 array
        Sums of the indices (z, y, x) of the voxels.
    begin, end : (n, 3) int64 arrays
        Bounding boxes (z, y, x); the end is excluded.
    """

    prediction: np.ndarray
    truth: np.ndarray
    counts: np.ndarray
    voxels: np.ndarray
    sums: np.ndarray
    begin: np.ndarray
    end: np.ndarray

    def rows(self, chosen: np.ndarray) -> Pairs:
        """Return some of the rows."""
        return Pairs(*(column[chosen] for column in self))

    def table(self) -> Contingency:
        """Return the table of the voxels that count."""
        kept = self.rows(self.counts)
        order = np.lexsort((kept.truth, kept.prediction))
        return Contingency(kept.prediction[order], kept.truth[order], kept.voxels[order])


NO_PAIRS = Pairs(
    np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, bool), np.zeros(0, np.int64),
    *(np.zeros((0, 3), np.int64) for _ in range(3)),
)


def measure_pairs(
    *, prediction: np.ndarray, truth: np.ndarray, known: np.ndarray | None, offset: Triple
) -> Pairs:
    """Measure the pairs of a block.

    Parameters
    ----------
    prediction, truth : (z, y, x) unsigned or non-negative integer arrays
        Ids; 0 is background.
    known : (z, y, x) bool array, optional
        Where voxels count. Default: everywhere.
    offset : (3,) int
        Index of the first voxel.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if prediction.shape != truth.shape or (known is not None and known.shape != truth.shape):
        raise ValueError(
            f"prediction has the shape {prediction.shape}, truth {truth.shape}, known "
            f"{None if known is None else known.shape}; all are needed for the same voxels"
        )
    if not truth.size:
        return NO_PAIRS
    starts, lengths = _runs(prediction, truth, known)
    first = np.stack(np.unravel_index(starts, truth.shape), axis=1) + np.asarray(offset, np.int64)
    sums = first * lengths[:, None]
    sums[:, 2] += lengths * (lengths - 1) // 2
    end = first + 1
    end[:, 2] += lengths - 1
    counts = np.ones(len(starts), bool) if known is None else known.reshape(-1)[starts]
    predicted, true = (
        values.reshape(-1)[starts].astype(np.uint64) for values in (prediction, truth)
    )
    return _summed(Pairs(predicted, true, counts, lengths, sums, first, end))


def _runs(
    prediction: np.ndarray, truth: np.ndarray, known: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first voxels and the lengths of runs along x of one pair.

    Objects are far thicker than a voxel, so there are far fewer runs than voxels to be sorted.
    """
    changes = np.zeros(truth.shape, bool)
    changes[..., 0] = True
    for values in (prediction, truth, known):
        if values is not None:
            changes[..., 1:] |= values[..., 1:] != values[..., :-1]
    starts = np.flatnonzero(changes)
    return starts, np.diff(starts, append=truth.size)


def merge_pairs(parts: Iterable[Pairs]) -> Pairs:
    """Return the pairs of a whole volume from those of its parts, in any order.

    Memory: some 250 bytes per row of the sum or, where that is more, of the largest part; however
    many parts there are.
    """
    found, waiting, n_waiting = NO_PAIRS, [], 0
    for part in parts:
        waiting.append(part)
        n_waiting += len(part.voxels)
        if n_waiting > max(_WAITING_ROWS, len(found.voxels)):
            found, waiting, n_waiting = _joined([found, *waiting]), [], 0
    return _joined([found, *waiting])


def _joined(parts: list[Pairs]) -> Pairs:
    return _summed(Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True))))


def _summed(rows: Pairs) -> Pairs:
    """Return each combination once, sorted by truth, prediction, and what counts last."""
    if not len(rows.voxels):
        return rows
    truth_ids, truth = fastremap.unique(rows.truth, return_inverse=True)
    prediction_ids, prediction = fastremap.unique(rows.prediction, return_inverse=True)
    # There are fewer than 2**31 rows, so the place in the matrix of all combinations fits.
    key = truth.astype(np.int64) * len(prediction_ids) + prediction.astype(np.int64)
    key = 2 * key + rows.counts
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = np.append(0, np.flatnonzero(key[1:] != key[:-1]) + 1)
    place = order[starts]
    return Pairs(
        prediction_ids[prediction[place]], truth_ids[truth[place]], rows.counts[place],
        np.add.reduceat(rows.voxels[order], starts), np.add.reduceat(rows.sums[order], starts),
        np.minimum.reduceat(rows.begin[order], starts), np.maximum.reduceat(rows.end[order], starts),
    )


class Extents(NamedTuple):
    """Objects of one side, by ascending id; background is none of them.

    Attributes
    ----------
    id : (n,) uint64 array
    voxels, ignored : (n,) int64 arrays
        Voxels that count, and those that do not.
    sums : (n, 3) int64 array
        Sums of the indices (z, y, x) of the voxels that count.
    begin, end : (n, 3) int64 arrays
        Bounding boxes of all voxels (z, y, x).
    """

    id: np.ndarray
    voxels: np.ndarray
    ignored: np.ndarray
    sums: np.ndarray
    begin: np.ndarray
    end: np.ndarray

    @property
    def center(self) -> np.ndarray:
        """Mean index (z, y, x) of the voxels that count; NaN without any."""
        return self.sums / np.where(self.voxels, self.voxels, np.nan)[:, None]

    def place(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows of ids, which must be among the objects."""
        return np.searchsorted(self.id, ids)


def extents(pairs: Pairs, side: Side) -> Extents:
    """Measure the whole objects of one side."""
    pairs = pairs.rows(getattr(pairs, side) != 0)
    ids, member = np.unique(getattr(pairs, side), return_inverse=True)
    n, counts = len(ids), pairs.counts
    found = Extents(
        ids, np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros((n, 3), np.int64),
        np.full((n, 3), np.iinfo(np.int64).max), np.zeros((n, 3), np.int64),
    )
    np.add.at(found.voxels, member[counts], pairs.voxels[counts])
    np.add.at(found.ignored, member[~counts], pairs.voxels[~counts])
    np.add.at(found.sums, member[counts], pairs.sums[counts])
    np.minimum.at(found.begin, member, pairs.begin)
    np.maximum.at(found.end, member, pairs.end)
    return found
