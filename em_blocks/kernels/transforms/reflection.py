"""Mirrored indices beyond the ends of an axis."""

from __future__ import annotations

import numpy as np


def reflected(begin: int, end: int, size: int) -> np.ndarray:
    """Return the indices begin .. end - 1 folded into 0 .. size - 1, mirrored at the border voxels.

    The border voxels are not repeated; an axis of one voxel gives that voxel.
    """
    period = max(1, 2 * (size - 1))
    index = np.arange(begin, end) % period
    return np.where(index < size, index, period - index)
