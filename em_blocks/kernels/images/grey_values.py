"""Grey values of 8 bits, from values of any range."""

from __future__ import annotations

import numpy as np

GREY_VALUES = 256


def to_grey(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map `low` .. `high` linearly to 0 .. 255; values beyond become the ends, NaN becomes 0.

    Parameters
    ----------
    values : integer or float array
    low, high : float
        Of integers, `high` is the largest one of the range: 0 to 255 stay what they are, of 0 to
        65535 the upper 8 bits are left. Of floats, it is the end of the range.

    Returns
    -------
    uint8 array of the same shape
    """
    if values.dtype == np.uint8:
        return _bins(np.arange(GREY_VALUES), low, high + 1)[values]
    if values.dtype.kind == "f":
        return _bins(np.nan_to_num(values, nan=low, posinf=high, neginf=low), low, high)
    if values.dtype.itemsize <= 2:
        limits = np.iinfo(values.dtype)
        table = _bins(np.arange(limits.min, limits.max + 1), low, high + 1)
        return table[values.astype(np.int32) - limits.min]
    return _bins(values, low, high + 1)


def _bins(values: np.ndarray, low: float, end: float) -> np.ndarray:
    """Number of the one of 256 equal bins from `low` to `end` that each value lies in."""
    found = np.floor((values - np.float64(low)) * (GREY_VALUES / (end - low)))
    return found.clip(0, GREY_VALUES - 1).astype(np.uint8)
