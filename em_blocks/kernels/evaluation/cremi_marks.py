"""Ids with a meaning in volumes of CREMI.

The challenge stores them as uint64; programs that read them as int64 store them as -1 and -2. Both
spellings mean the same.
"""

from __future__ import annotations

import numpy as np

BACKGROUND = np.uint64(2**64 - 1)
"""No cleft."""
IGNORED = np.uint64(2**64 - 2)
"""Not annotated."""
SIGNED = (-1, -2)
"""Background and unknown in signed integers."""


def without_marks(labels: np.ndarray) -> np.ndarray:
    """The same ids with 0 where they mean background or unknown; a copy only if there are any.

    Parameters
    ----------
    labels : int array
        Of less than 64 bits, only signed ones can hold the two ids of CREMI.
    """
    marked = _marked(labels)
    return labels if marked is None else np.where(marked, labels.dtype.type(0), labels)


def is_unknown(labels: np.ndarray) -> np.ndarray:
    """Mark voxels that were not annotated; bool array."""
    if labels.dtype.kind == "i":
        return labels == SIGNED[1]
    return labels == IGNORED


def _marked(labels: np.ndarray) -> np.ndarray | None:
    """Find a mark; None if it does not occur."""
    if not labels.size:
        return None
    if labels.dtype.kind == "i":
        return np.isin(labels, SIGNED) if labels.min() < 0 else None
    return labels >= IGNORED if labels.dtype == np.uint64 and labels.max() >= IGNORED else None
