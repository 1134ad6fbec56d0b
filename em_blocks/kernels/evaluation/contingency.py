"""How many voxels every pair of segment and neuron shares: the table behind all scores.

Tables of disjoint parts of a volume add up, so a volume is counted block by block, exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

import fastremap
import numpy as np

Side = Literal["segmentation", "truth"]

# Tables that wait to be merged hold as many rows as the sum has, or at least these: a merge
# sorts all rows, so merging every small table at once would sort the large one again and again.
_WAITING_ROWS = 1 << 20

# Up to this many places per row, the whole matrix of pairs is made: ten times faster than sorting.
_DENSE = 4

# Odd, and far from any regular pattern of ids (2**64 / golden ratio, after Knuth).
_HASH = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Contingency:
    """Voxels that segments and neurons share; sorted by (segmentation, truth), each pair once.

    Attributes
    ----------
    segmentation, truth : (n,) uint64 array
        Ids of the pair. 0 is an id like any other here; see `without`. An id of -1 is 2**64 - 1.
    voxels : (n,) int64 array
        Voxels with both ids; never 0.
    """

    segmentation: np.ndarray
    truth: np.ndarray
    voxels: np.ndarray

    def __len__(self) -> int:
        return len(self.voxels)

    @property
    def total(self) -> int:
        """Number of voxels that were counted."""
        return int(self.voxels.sum())

    def without(
        self, *, truth: Iterable[int] = (), segmentation: Iterable[int] = ()
    ) -> Contingency:
        """The table of the voxels that have none of these ids; -1 and 2**64 - 1 are the same."""
        return self._rows(~(_among(self.truth, truth) | _among(self.segmentation, segmentation)))

    def part(self, side: Side, number: int, of: int) -> Contingency:
        """One of `of` disjoint parts; all rows of an id of `side` are in the same one."""
        if of == 1:
            return self
        # The upper bits of the product depend on all bits of the id; the lower ones do not.
        share = (getattr(self, side) * _HASH >> np.uint64(32)) % np.uint64(of)
        return self._rows(share == number)

    def _rows(self, chosen: np.ndarray) -> Contingency:
        return Contingency(self.segmentation[chosen], self.truth[chosen], self.voxels[chosen])


def _among(ids: np.ndarray, chosen: Iterable[int]) -> np.ndarray:
    return np.isin(ids, np.array([id % 2**64 for id in chosen], np.uint64))


EMPTY = Contingency(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64))


def count_overlaps(
    *, segmentation: np.ndarray, truth: np.ndarray, negative: Collection[int] = ()
) -> Contingency:
    """Count the voxels of every pair of ids.

    Parameters
    ----------
    segmentation, truth : int array
        Ids, of one shape.
    negative : ints
        Ids below 0 that may occur, because they are left out afterwards; counted as 2**64 + id.

    Raises
    ------
    ValueError
        If the shapes differ, values are not integers, or another id is negative.
    """
    if segmentation.shape != truth.shape:
        raise ValueError(
            f"segmentation has the shape {segmentation.shape}, truth {truth.shape}; both are needed "
            "for the same voxels"
        )
    if not segmentation.size:
        return EMPTY
    # Objects are far thicker than a voxel, so only the ends of runs along x are sorted; on
    # FIB-SEM of 10 nm there is one in 12 voxels. Where every voxel differs it costs little.
    segmentation, truth = segmentation.reshape(-1), truth.reshape(-1)
    changes = segmentation[1:] != segmentation[:-1]
    changes |= truth[1:] != truth[:-1]
    starts = np.append(0, np.flatnonzero(changes) + 1)
    lengths = np.diff(starts, append=segmentation.size)
    a, b = (as_ids(values[starts], negative) for values in (segmentation, truth))
    return _summed_by_rank(a, b, lengths)


def as_ids(values: np.ndarray, negative: Collection[int] = ()) -> np.ndarray:
    """The same ids as uint64, those of `negative` as 2**64 + id.

    Raises ValueError if they are no integers, or another one is negative.
    """
    if values.dtype.kind not in "ui":
        raise ValueError(f"ids are integers, got {values.dtype}")
    wrong = negative_ids(values, negative)
    if len(wrong):
        raise ValueError(f"ids are not negative, got {wrong.min()}")
    return values.astype(np.uint64, copy=False)


def negative_ids(values: np.ndarray, allowed: Collection[int] = ()) -> np.ndarray:
    """Ids below 0 that are not among `allowed` (-1 or 2**64 - 1), each as often as it occurs."""
    if values.dtype.kind != "i" or not values.size or values.min() >= 0:
        return np.zeros(0, values.dtype)
    below = values[values < 0]
    return below[~np.isin(below, [(id + 2**63) % 2**64 - 2**63 for id in allowed])]


class Merger:
    """Adds up tables of disjoint voxels.

    Memory: about 150 bytes per row of the sum or, where that is more, of the largest table;
    however many tables are added.
    """

    def __init__(self):
        self._sum, self._waiting, self._waiting_rows = EMPTY, [], 0

    def add(self, table: Contingency) -> None:
        self._waiting.append(table)
        self._waiting_rows += len(table)
        if self._waiting_rows > max(_WAITING_ROWS, len(self._sum)):
            self.result()

    def result(self) -> Contingency:
        """The table of all voxels that were counted so far."""
        self._sum = _concatenated([self._sum, *self._waiting])
        self._waiting, self._waiting_rows = [], 0
        return self._sum


def merged(tables: Iterable[Contingency]) -> Contingency:
    """The table of all voxels that `tables` count; memory as of a `Merger`."""
    merger = Merger()
    for table in tables:
        merger.add(table)
    return merger.result()


def _concatenated(tables: list[Contingency]) -> Contingency:
    tables = [table for table in tables if len(table)] or [EMPTY]
    if len(tables) == 1:
        return tables[0]
    columns = (
        np.concatenate([getattr(table, column) for table in tables])
        for column in ("segmentation", "truth", "voxels")
    )
    return _summed(*columns)


def _summed(segmentation: np.ndarray, truth: np.ndarray, voxels: np.ndarray) -> Contingency:
    """Sort pairs and add up the voxels of equal ones."""
    bits = int(truth.max()).bit_length()
    if int(segmentation.max()).bit_length() + bits > 64:
        return _summed_by_rank(segmentation, truth, voxels)
    pairs, voxels = _sorted_sums(segmentation << np.uint64(bits) | truth, voxels)
    return Contingency(pairs >> np.uint64(bits), pairs & np.uint64((1 << bits) - 1), voxels)


def _summed_by_rank(
    segmentation: np.ndarray, truth: np.ndarray, voxels: np.ndarray
) -> Contingency:
    """As `_summed`, for ids of any size, and faster where few ids make many rows."""
    segments, row = fastremap.unique(segmentation, return_inverse=True)
    neurons, column = fastremap.unique(truth, return_inverse=True)
    n = np.uint64(len(neurons))
    # Places in the matrix of all pairs. There are fewer than 2**32 rows, so it fits.
    pairs = row.astype(np.uint64) * n + column.astype(np.uint64)
    if len(segments) * len(neurons) <= _DENSE * len(pairs) and voxels.sum() < 2**53:
        matrix = np.bincount(pairs.astype(np.int64), weights=voxels)  # float64, exact up to 2**53
        pairs = np.flatnonzero(matrix)
        voxels, pairs = matrix[pairs].astype(np.int64), pairs.astype(np.uint64)
    else:
        pairs, voxels = _sorted_sums(pairs, voxels)
    return Contingency(segments[pairs // n], neurons[pairs % n], voxels)


def _sorted_sums(keys: np.ndarray, voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted keys, each once, and the sum of the voxels of each."""
    order = np.argsort(keys)
    keys = keys[order]
    starts = np.append(0, np.flatnonzero(keys[1:] != keys[:-1]) + 1)
    return keys[starts], np.add.reduceat(voxels[order], starts).astype(np.int64, copy=False)
