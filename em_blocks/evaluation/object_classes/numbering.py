"""Numbers of clusters that do not depend on the method."""

from __future__ import annotations

import numpy as np

NOISE = 0


def by_size(labels: np.ndarray) -> np.ndarray:
    """Number clusters 1, 2, ... from the largest to the smallest; negative labels become 0.

    Of clusters of one size, the one that has the first object comes first.
    """
    found, first, inverse, counts = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -counts, found < 0))
    numbers = np.empty(len(found), np.int32)
    numbers[order] = np.arange(1, len(found) + 1)
    return np.where(found < 0, NOISE, numbers)[inverse].astype(np.int32)
