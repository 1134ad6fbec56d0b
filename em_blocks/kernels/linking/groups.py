"""Rows of several columns, grouped by their values."""

from __future__ import annotations

import numpy as np


def grouped(*columns: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the distinct rows of columns, sorted, and the number of every row among them.

    Parameters
    ----------
    *columns : (n,) int arrays
        The first is compared first.

    Returns
    -------
    distinct : list of (m,) int arrays
        As many as columns.
    number : (n,) int64 array
        0 to m - 1.
    """
    order = np.lexsort(columns[::-1])
    changes = np.ones(len(order), bool)
    changes[1:] = np.any([np.diff(column[order]) != 0 for column in columns], axis=0)
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(changes) - 1
    return [column[order[changes]] for column in columns], number


def sums(number: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Return the sum of the values of each of `n` groups, int64."""
    total = np.zeros(n, np.int64)
    np.add.at(total, number, values)
    return total
