"""A few boxes of a volume that stand for it, to find at the start what would fail in every block."""

from __future__ import annotations

import math

import numpy as np

from em_blocks.geometry import Box, Triple

MOST_CHUNKS = 8


def sample_boxes(shape: Triple, chunk_shape: Triple) -> list[Box]:
    """Return whole chunks, evenly spread over the volume, the first and the last among them.

    Parameters
    ----------
    shape, chunk_shape : (3,) int
        Voxels (z, y, x) of the volume, and those that are stored, and so best read, together.

    Returns
    -------
    list of Box
        At most `MOST_CHUNKS`; all chunks if there are no more.
    """
    grid = [-(-n // c) for n, c in zip(shape, chunk_shape, strict=True)]
    n = math.prod(grid)
    numbers = np.unique(np.linspace(0, n - 1, min(n, MOST_CHUNKS)).round().astype(np.int64))
    whole = Box((0, 0, 0), shape)
    places = np.stack(np.unravel_index(numbers, grid), axis=1) * chunk_shape
    return [Box(tuple(place), chunk_shape).intersect(whole) for place in places.tolist()]
