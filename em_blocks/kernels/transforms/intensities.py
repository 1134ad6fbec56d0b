"""What a sample of a raw volume is like: NaN, infinity, constant, clipped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from em_blocks.geometry import Triple, triple


@dataclass(frozen=True)
class Intensities:
    """What an array holds.

    Attributes
    ----------
    size : int
        Values, finite or not.
    nan, infinite : int
        How many values are neither.
    first_nan, first_infinite : (3,) int or None
        Index (z, y, x) of the first of them.
    low, high : float or None
        Of the finite values; None without any.
    clipped : int
        Values at one end of the range that are more than a tail would have: the count of the
        lowest or of the highest value, whichever is larger.
    """

    size: int
    nan: int
    infinite: int
    first_nan: tuple[int, int, int] | None
    first_infinite: tuple[int, int, int] | None
    low: float | None
    high: float | None
    clipped: int

    @property
    def constant(self) -> bool:
        """Tell whether all values are the same number."""
        return self.low is not None and self.low == self.high and not (self.nan or self.infinite)


def describe(values: np.ndarray, *, ends: tuple[float, float] | None = None) -> Intensities:
    """Describe the numbers of a (z, y, x) array.

    Parameters
    ----------
    ends : (low, high), optional
        Values at which the dtype, or the camera, cuts. Default: those of an integer dtype, and the
        lowest and highest value of floats.
    """
    if values.dtype.kind != "f":
        low, high = int(values.min()), int(values.max())
        nan = infinite = np.zeros(values.shape, bool)
        finite = values
        limits = np.iinfo(values.dtype)
        ends = ends or (limits.min, limits.max)
    else:
        nan, infinite = np.isnan(values), np.isinf(values)
        finite = values[~(nan | infinite)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (None, None)
        ends = ends or (low, high)
    clipped = max(int((finite == end).sum()) for end in ends) if finite.size else 0
    return Intensities(
        values.size, int(nan.sum()), int(infinite.sum()), _first(nan), _first(infinite), low, high,
        clipped,
    )


def _first(marked: np.ndarray) -> Triple | None:
    if not marked.any():
        return None
    return triple(int(i) for i in np.unravel_index(int(marked.argmax()), marked.shape))
