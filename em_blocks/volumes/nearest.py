"""A volume read at the voxels of another one: masks of coarser voxels, for example."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from em_blocks.geometry import TOLERANCE_VOXELS, Box, Frame
from em_blocks.volumes.volume import Volume


def read_nearest(volume: Volume, frame: Frame, box: Box) -> np.ndarray:
    """Read the values at the centres of voxels of another frame; 0 outside of the volume.

    Parameters
    ----------
    volume : Volume
        Of any voxel size and offset, without channels.
    frame : Frame
    box : Box
        Voxels of `frame`.

    Returns
    -------
    (z, y, x) array of the shape of `box`
    """
    return nearest(partial(volume.read, outside="constant"), volume.frame, frame, box)


def nearest(
    read: Callable[[Box], np.ndarray], own: Frame, frame: Frame, box: Box
) -> np.ndarray:
    """Return the values at the centres of voxels of another frame, as of `read_nearest`.

    Parameters
    ----------
    read : function of a Box
        Reads voxels (z, y, x) of the frame `own`, those that the box of the other frame touches.
    """
    if own == frame:
        return read(box)
    places = [_places(own, frame, box, axis) for axis in range(3)]
    needed = Box.between([p.min() for p in places], [p.max() + 1 for p in places])
    values = read(needed)
    return values[np.ix_(*(p - o for p, o in zip(places, needed.offset, strict=True)))]


def _places(own: Frame, frame: Frame, box: Box, axis: int) -> np.ndarray:
    """Return the voxel of `own` in which each voxel of `box` has its centre."""
    centres = (np.arange(box.offset[axis], box.end[axis]) + 0.5) * frame.voxel_size[axis]
    voxels = (centres + frame.offset[axis] - own.offset[axis]) / own.voxel_size[axis]
    return np.floor(voxels + TOLERANCE_VOXELS).astype(np.int64)
