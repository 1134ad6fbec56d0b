"""Volumes of one voxel size read at the voxels of another one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from em_blocks.geometry import Box, Frame


def read_nearest(
    read: Callable[[Box], np.ndarray], own: Frame, frame: Frame, box: Box
) -> np.ndarray:
    """Return the values of a volume at the middles of voxels of another one.

    Parameters
    ----------
    read : function of a Box
        Reads voxels (z, y, x) of the volume, also beyond it if `box` lies beyond it.
    own : Frame
        Of the volume.
    frame : Frame
        Of the other one.
    box : Box
        Voxels of the other one.

    Returns
    -------
    (z, y, x) array
        Of the shape of `box`.
    """
    places = [
        np.floor((o + (np.arange(b, e) + 0.5) * v - at) / size).astype(np.int64)
        for o, v, b, e, at, size in zip(
            frame.offset, frame.voxel_size, box.offset, box.end, own.offset, own.voxel_size,
            strict=True,
        )
    ]
    seen = Box.between([int(p[0]) for p in places], [int(p[-1]) + 1 for p in places])
    return read(seen)[np.ix_(*(p - p[0] for p in places))]
