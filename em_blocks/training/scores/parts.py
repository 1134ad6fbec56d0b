"""Parts of a validation box that are predicted and scored one after the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from em_blocks.geometry import Box, Triple, triple
from em_blocks.training.data.sources import TrainingData

MOST_VOXELS = 2**21
"""Of a part: with three classes its probabilities take 25 MB."""


def part_shape(tile_shape: Triple, most: int = MOST_VOXELS) -> Triple:
    """Return the shape (z, y, x) of whole tiles, as much like a cube as fits into `most` voxels."""
    shape = list(tile_shape)
    while True:
        axis = shape.index(min(shape))
        larger = [*shape[:axis], shape[axis] + tile_shape[axis], *shape[axis + 1 :]]
        if math.prod(larger) > most:
            return triple(shape)
        shape = larger


def parts_of(data: TrainingData, shape: Triple) -> Iterator[TrainingData]:
    """Split the used box of `data` along a grid of `shape` voxels that begins at voxel 0 of raw.

    Tiles of a prediction lie at multiples of their shape from there, so that parts of whole tiles are
    predicted as the box is.
    """
    box = Box.between(data.begin, data.end)
    axes = [
        range(begin // n * n, end, n) for begin, end, n in zip(data.begin, data.end, shape, strict=True)
    ]
    for corner in itertools.product(*axes):
        part = Box(triple(corner), shape).intersect(box)
        yield data._replace(begin=part.offset, end=part.end)
