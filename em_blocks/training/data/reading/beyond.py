"""Voxels beyond the end of a volume, or of a region: mirrored, or 0."""

from __future__ import annotations

import numpy as np

from em_blocks.geometry import Box
from em_blocks.kernels.transforms.reflection import reflected
from em_blocks.training.data.reading.voxels import Voxels


def read_mirrored(voxels: Voxels, box: Box) -> np.ndarray:
    """Read a box (z, y, x) of a volume, mirrored at its border voxels where the volume ends.

    What is read depends on the place of the volume alone, not on the box.
    """
    index = [reflected(b, e, n) for b, e, n in zip(box.offset, box.end, voxels.shape, strict=True)]
    needed = Box.between([i.min() for i in index], [i.max() + 1 for i in index])
    values = np.asarray(voxels[needed.slices])
    if needed == box:
        return values
    for axis, (at, begin) in enumerate(zip(index, needed.offset, strict=True)):
        values = values.take(at - begin, axis=axis)
    return values


def read_within(voxels: Voxels, region: Box, box: Box) -> np.ndarray:
    """Read a box (z, y, x) of a volume; 0 outside of `region`, which lies in the volume."""
    inside = box.intersect(region)
    values = np.zeros(box.shape, voxels.dtype)
    if inside.size:
        values[inside.relative_to(box).slices] = voxels[inside.slices]
    return values
