"""Ids with a meaning in volumes of CREMI."""

from __future__ import annotations

import numpy as np

BACKGROUND = np.uint64(2**64 - 1)
"""No cleft."""
IGNORED = np.uint64(2**64 - 2)
"""Nobody knows: not annotated."""


def without_marks(labels: np.ndarray) -> np.ndarray:
    """The same ids with 0 where they mean background or unknown; a copy only if there are any.

    Parameters
    ----------
    labels : int array
        Only uint64 can hold the two ids of CREMI.
    """
    if labels.dtype != np.uint64 or not labels.size or labels.max() < IGNORED:
        return labels
    return np.where(labels >= IGNORED, np.uint64(0), labels)
