"""Rows of edges from many blocks, put together."""

from __future__ import annotations

import numpy as np

Rows = dict[str, np.ndarray]


def summed(
    u: np.ndarray, v: np.ndarray, rows: Rows, *, best: bool
) -> tuple[np.ndarray, np.ndarray, Rows]:
    """One row per pair of nodes, sorted by (u, v).

    Parameters
    ----------
    u, v : (n,) int64 array
        Dense nodes, 0 <= u < v < 2^31.
    rows : dict of (n,) or (n, k) int array
        ``contact``, ``total``, ``weight`` and others are added up; the smallest ``rank`` is kept.
    best : bool
        Keep total and weight of the row with the best quotient instead of adding them up.

    Returns
    -------
    u, v, rows
    """
    key = (u << 32) | v
    if not len(key):
        return u, v, rows
    if best:
        order = np.lexsort((-(rows["total"] / rows["weight"]), key))
    else:
        order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    result = {}
    for name, values in rows.items():
        if name == "rank":
            result[name] = np.minimum.reduceat(values[order], first)
        elif best and name in ("total", "weight"):
            result[name] = values[order][first]
        else:
            result[name] = np.add.reduceat(values[order], first)
    return key[first] >> 32, key[first] & 0xFFFFFFFF, result


def dense(*columns: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Sorted ids of all columns, and the columns as places among them."""
    ids = np.unique(np.concatenate(columns)) if columns else np.zeros(0, np.int64)
    return ids, [np.searchsorted(ids, column) for column in columns]
