"""Which blocks a mask leaves out."""

from __future__ import annotations

import numpy as np

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError
from em_blocks.geometry import BlockGrid, Box, Frame
from em_blocks.volumes import Volume
from em_blocks.volumes.nearest import read_nearest


def open_mask(path: str | VolumeInput) -> Volume:
    """Open a mask; raises `ConfigError` if it has channels."""
    mask = Volume.open(path)
    if mask.channels is not None:
        raise ConfigError(
            f"The mask {path} has {mask.channels} channels; a mask is one array (z, y, x), 0 where "
            "nothing is to be computed."
        )
    return mask


def read_mask(mask: Volume, frame: Frame, box: Box) -> np.ndarray:
    """Return where a mask is not 0, at the middles of voxels of another volume.

    Parameters
    ----------
    mask : Volume
        Of any voxel size and place; beyond it is 0.
    frame : Frame
        Of the other volume.
    box : Box
        Its voxels.

    Returns
    -------
    (z, y, x) bool array
        Of the shape of `box`.
    """
    return read_nearest(mask, frame, box) != 0


def masked_blocks(path: str | VolumeInput, grid: BlockGrid) -> np.ndarray:
    """Return blocks where a mask volume is 0 everywhere.

    The mask may have any voxel size and cover any part of the grid; outside of it is 0.
    It is read in slabs of one row of blocks.

    Returns
    -------
    (z, y, x) bool array over the block grid
    """
    mask = open_mask(path)
    masked = np.ones(grid.shape, bool)
    for zi in range(grid.shape[0]):
        first = grid.block((zi, 0, 0))
        last = grid.block((zi, grid.shape[1] - 1, grid.shape[2] - 1))
        row = Box.between(first.write_box.offset, last.write_box.end)
        slab = mask.frame.enclosing_box(grid.frame.to_roi(row))
        values = mask.read(slab, outside="constant") != 0
        for yi, xi in np.ndindex(grid.shape[1:]):
            block = grid.frame.to_roi(grid.block((zi, yi, xi)).write_box)
            box = mask.frame.enclosing_box(block).relative_to(slab)
            masked[zi, yi, xi] = not values[box.slices].any()
    if masked.all():
        raise ConfigError(
            f"The mask {path} is 0 in every block of the run, so nothing would be computed. Check that "
            "its voxel size and offset place it over the volume, and that tissue is not 0."
        )
    return masked
