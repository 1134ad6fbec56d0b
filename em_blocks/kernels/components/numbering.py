"""Numbers 0, 1, ... of ids, in a hash table: many times as fast as sorting them."""

from __future__ import annotations

import numpy as np
from numba import njit

from em_blocks.kernels.segmentation.pair_table import place

_FIRST_TABLE = 1024


def number_ids(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different ids, ascending, and which of them each is: as `numpy.unique` does.

    Parameters
    ----------
    ids : (n,) int64 array
        Above 0.

    Returns
    -------
    ids : (m,) int64 array
    member : (n,) int64 array
        Places in `ids`.
    """
    found, member = _numbered(ids, _FIRST_TABLE)
    order = np.argsort(found)
    rank = np.empty(len(found), np.int64)
    rank[order] = np.arange(len(found))
    return found[order], rank[member]


@njit(cache=True, nogil=True)
def _numbered(ids, capacity):
    """Number ids in the order in which they appear."""
    keys, numbers = np.zeros(capacity, np.uint64), np.zeros(capacity, np.int64)
    found, n = np.empty(capacity, np.int64), 0
    member = np.empty(len(ids), np.int64)
    for i in range(len(ids)):
        key = np.uint64(ids[i])
        here = place(keys, key)
        if keys[here] == 0:
            if 2 * n >= len(keys):
                keys, numbers, found = _grown(found[:n])
                here = place(keys, key)
            keys[here], numbers[here], found[n] = key, n, ids[i]
            n += 1
        member[i] = numbers[here]
    return found[:n].copy(), member


@njit(cache=True, nogil=True)
def _grown(found):
    """Return a table four times as long as its ids, with room for as many."""
    capacity = 1
    while capacity < 4 * len(found):
        capacity *= 2
    keys, numbers = np.zeros(capacity, np.uint64), np.zeros(capacity, np.int64)
    longer = np.empty(capacity, np.int64)
    for n in range(len(found)):
        here = place(keys, np.uint64(found[n]))
        keys[here], numbers[here], longer[n] = np.uint64(found[n]), n, found[n]
    return keys, numbers, longer
