"""Chunks of an output whose config does not say them."""

from __future__ import annotations

from em_blocks.errors import BlockAlignmentError
from em_blocks.geometry import Triple

LEAST_CHUNK, DEFAULT_CHUNK, MOST_CHUNK = 32, 64, 128
"""Voxels per axis."""


def usual_chunk(block_shape: Triple) -> Triple:
    """Return chunks of a size that files and viewers are good at, a whole number of which is a block."""
    chunk = tuple(divisor(size) for size in block_shape)
    if None not in chunk:
        return chunk
    near = tuple(nearest_divisible(size) for size in block_shape)
    raise BlockAlignmentError(
        f"block_shape {block_shape} (voxels, zyx) cannot be cut into chunks of {LEAST_CHUNK} to "
        f"{MOST_CHUNK} voxels per axis; smaller ones would be thousands of tiny files. Use block_shape "
        f"{near}, or set the 'chunk_shape' of every output."
    )


def divisor(size: int) -> int | None:
    """Return a divisor of `size` for a chunk: at most 64 if there is one from 32 on, else up to 128."""
    if size <= LEAST_CHUNK:
        return size
    small = (d for d in range(DEFAULT_CHUNK, LEAST_CHUNK - 1, -1) if size % d == 0)
    large = (d for d in range(DEFAULT_CHUNK + 1, MOST_CHUNK + 1) if size % d == 0)
    return next(small, None) or next(large, None)


def nearest_divisible(size: int) -> int:
    """Return the size nearest to `size` that has such a divisor."""
    return next(
        size + sign * step for step in range(size) for sign in (1, -1) if divisor(size + sign * step)
    )
