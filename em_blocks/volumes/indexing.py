"""Basic numpy indices of a stored array: integers, slices of step 1, one ellipsis."""

from __future__ import annotations

import operator
from typing import Any

Index = tuple[slice | int, ...]


def basic_index(key: Any, shape: tuple[int, ...], source: str) -> Index:
    """Return what `key` selects of an array: for every axis an integer, or a slice within it.

    Parameters
    ----------
    key : int, slice, ellipsis or tuple of these
        As numpy understands them: negative numbers count from the end, slices are cut at it.
    shape : tuple of int
        Of the array.
    source : str
        What messages call the array.

    Raises
    ------
    IndexError
        If there are too many indices, an integer lies outside, a step is not 1, or an index is of
        another kind (arrays, masks and new axes).
    """
    keys = key if isinstance(key, tuple) else (key,)
    n_ellipses = sum(part is Ellipsis for part in keys)
    n_missing = len(shape) - (len(keys) - n_ellipses)
    if n_ellipses > 1 or n_missing < 0:
        raise IndexError(
            f"{len(keys) - n_ellipses} indices and {n_ellipses} ellipses do not fit {source}, which has "
            f"{len(shape)} axes of {shape} voxels. Give at most one index per axis and one ellipsis."
        )
    at = next((i for i, part in enumerate(keys) if part is Ellipsis), len(keys))
    parts = [*keys[:at], *[slice(None)] * n_missing, *keys[at + 1:]]
    return tuple(
        _within(part, size, axis, source)
        for axis, (part, size) in enumerate(zip(parts, shape, strict=True))
    )


def _within(part: Any, size: int, axis: int, source: str) -> slice | int:
    """Return the index of one axis, counted from its beginning."""
    if isinstance(part, slice):
        begin, end, step = part.indices(size)
        if step != 1:
            raise IndexError(
                f"The step of {part} on axis {axis} of {source} is {step}, but only neighbouring voxels "
                "are read. Use a step of 1, and thin out the array that you get."
            )
        return slice(begin, max(begin, end))
    # A bool is an integer for Python and a mask for numpy.
    if isinstance(part, bool) or not hasattr(part, "__index__") or getattr(part, "ndim", False):
        raise IndexError(
            f"{str(part)[:80]} on axis {axis} of {source} is no integer and no slice. Index the volume "
            "by these, or by a Box or Roi, and the array that you get by anything else."
        )
    number = operator.index(part)
    if not -size <= number < size:
        raise IndexError(
            f"Index {number} is outside of axis {axis} of {source}, which has {size} voxels."
        )
    return number % size
