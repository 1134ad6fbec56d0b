"""Tiles of a volume: where a network is applied, and how overlapping tiles are blended."""

from __future__ import annotations

import itertools
import math

import numpy as np

from em_blocks.geometry import Triple


def tile_offsets(
    begin: Triple, end: Triple, tile_shape: Triple, overlap: Triple = (0, 0, 0)
) -> list[Triple]:
    """First voxels of all tiles that touch a box.

    Tiles lie at multiples of ``tile_shape - overlap`` from voxel 0 of the volume, not of the
    box: every partition of the volume into blocks sees the same tiles.

    Parameters
    ----------
    begin, end : (3,) int
        The box, voxels (z, y, x), end excluded.
    tile_shape, overlap : (3,) int
        Voxels (z, y, x); `overlap` is shared by neighbouring tiles.

    Returns
    -------
    list of (3,) int, z slowest
        May be negative: a tile may begin before the volume.
    """
    axes = []
    for b, e, tile, shared in zip(begin, end, tile_shape, overlap, strict=True):
        stride = tile - shared
        first = math.floor((b - tile) / stride) + 1
        last = math.ceil(e / stride) - 1
        axes.append([index * stride for index in range(first, last + 1)])
    z, y, x = axes
    return list(itertools.product(z, y, x))


def blend_window(tile_shape: Triple, overlap: Triple) -> np.ndarray:
    """Weights that fall linearly towards the faces of a tile, over the overlap.

    Parameters
    ----------
    tile_shape, overlap : (3,) int
        Voxels (z, y, x).

    Returns
    -------
    (z, y, x) float32 array
        Positive everywhere; where two tiles overlap along one axis their weights add up to 1.
    """
    window = np.ones(tile_shape, np.float32)
    for axis, (size, shared) in enumerate(zip(tile_shape, overlap, strict=True)):
        if shared == 0:
            continue
        ramp = (np.arange(shared, dtype=np.float32) + 0.5) / shared
        line = np.ones(size, np.float32)
        line[:shared] = ramp
        line[size - shared :] = np.minimum(line[size - shared :], ramp[::-1])
        window *= line.reshape([-1 if a == axis else 1 for a in range(3)])
    return window
