"""Hash tables of pairs of ids, for compiled kernels.

A table is a uint64 array whose length is a power of two; 0 marks a free place. Callers keep it
less than three quarters full.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, inline="always")
def pair_key(a: int, b: int) -> np.uint64:
    """Key of the unordered pair of different ids 0 <= a, b < 2^32 - 1; never 0."""
    if a > b:
        a, b = b, a
    return (np.uint64(a) << np.uint64(32)) | np.uint64(b + 1)


@njit(cache=True, inline="always")
def place(keys: np.ndarray, key: np.uint64) -> np.uint64:
    """Find the place of `key` in the table, or the free place where it belongs."""
    mask = np.uint64(len(keys) - 1)
    # Fibonacci hashing: a bit of the product depends on the bits of the key up to there, so both
    # ids must come into the lower half first; else the pairs of one id with many lie in a heap.
    mixed = (key ^ (key >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    here = (mixed >> np.uint64(32)) & mask
    while keys[here] != 0 and keys[here] != key:
        here = (here + np.uint64(1)) & mask
    return here


@njit(cache=True)
def doubled(keys: np.ndarray) -> np.ndarray:
    """The same keys in a table of twice the length."""
    larger = np.zeros(2 * len(keys), np.uint64)
    for key in keys:
        if key != 0:
            larger[place(larger, key)] = key
    return larger


@njit(cache=True, inline="always")
def find_root(parent: np.ndarray, i: int) -> int:
    """Root of `i` in a union-find forest; halves the path on the way."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True)
def dense_labels(parent: np.ndarray) -> tuple[np.ndarray, int]:
    """1, 2, ... per set of a union-find forest, in the order of first elements; and their number."""
    labels = np.empty(len(parent), np.int32)
    number = np.zeros(len(parent), np.int32)
    n = 0
    for i in range(len(parent)):
        root = find_root(parent, i)
        if number[root] == 0:
            n += 1
            number[root] = n
        labels[i] = number[root]
    return labels, n
