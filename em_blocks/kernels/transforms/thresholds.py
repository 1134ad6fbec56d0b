"""Thresholds of probabilities, compared as values are stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

LARGEST_TABLE = 2
"""Bytes of an integer of which all values are looked up in a table."""


def stored_thresholds(
    thresholds: Sequence[float], *, dtype: np.dtype | str, scale: float
) -> np.ndarray:
    """Return the smallest stored values whose probability, stored / scale, reaches each threshold.

    Parameters
    ----------
    dtype : dtype
        Of the stored values: uint8, uint16 or floating point. Floats are compared in their own
        precision, so that a stored float32 of 0.7 reaches 0.7.

    Returns
    -------
    (n,) array
        Of `dtype` for floats, else int64; a threshold that no integer reaches is one more than the
        largest.
    """
    dtype, wanted = np.dtype(dtype), np.asarray(thresholds, np.float64)
    if dtype.kind == "f":
        return (wanted * scale).astype(dtype)
    if dtype.kind != "u" or dtype.itemsize > LARGEST_TABLE:
        raise ValueError(f"probabilities are uint8, uint16 or floats, got {dtype}")
    probabilities = np.arange(np.iinfo(dtype).max + 1) / scale
    return np.searchsorted(probabilities, wanted).astype(np.int64)


def levels_reached(values: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Return how many thresholds each value reaches.

    Parameters
    ----------
    values : array
        As stored, without NaN.
    stored : (n,) array
        Ascending, as `stored_thresholds` returns them.

    Returns
    -------
    array of the shape of `values`
        0..n; a value reaches threshold k, from 0, where this is above k.
    """
    kind = np.min_scalar_type(len(stored))
    if values.dtype.kind == "f":
        return np.searchsorted(stored, values.ravel(), side="right").astype(kind).reshape(values.shape)
    every = np.arange(np.iinfo(values.dtype).max + 1)
    return np.searchsorted(stored, every, side="right").astype(kind)[values]


def highest_reached(channels: Iterable[np.ndarray], stored: Sequence) -> np.ndarray:
    """Return the channel with the highest of the values that reach their thresholds.

    Parameters
    ----------
    channels : iterable of n (z, y, x) arrays
        Of one dtype, as stored; held one at a time.
    stored : n numbers
        As `stored_thresholds` returns them.

    Returns
    -------
    (z, y, x) uint8 array
        1..n; the first of equal ones; 0 where no threshold is reached.
    """
    found = best = None
    for number, (values, least) in enumerate(zip(channels, stored, strict=True), start=1):
        if found is None or best is None:
            found, best = np.zeros(values.shape, np.uint8), np.zeros_like(values)
        better = (values >= least) & ((found == 0) | (values > best))
        found[better], best[better] = number, values[better]
    if found is None:
        raise ValueError("there are no channels")
    return found
