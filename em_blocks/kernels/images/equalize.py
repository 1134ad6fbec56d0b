"""Contrast-limited adaptive histogram equalisation (CLAHE): grey values by the maps of regions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from em_blocks.geometry import Box, Triple
from em_blocks.kernels.images.contrast_maps import STEPS


class Between(NamedTuple):
    """Where the voxels of one axis lie between the centres of two regions.

    Attributes
    ----------
    before, after : (n,) int64 arrays
        The regions; the same one twice outside of the outermost centres, and at a centre.
    way : (n,) float32 array
        How much of `after` a voxel takes, 0 to 1.
    """

    before: np.ndarray
    after: np.ndarray
    way: np.ndarray

    def counted_from(self, first: int) -> Between:
        """Return the same with regions counted from `first` on."""
        # Unsigned: signed ones are asked at each look-up whether they count from the end (30 %).
        before, after = (ends.astype(np.uintp) for ends in (self.before - first, self.after - first))
        return Between(before, after, self.way)


def between_regions(begin: int, end: int, kernel: int, size: int) -> Between:
    """Return the regions around the voxels `begin` to `end` of an axis.

    Parameters
    ----------
    kernel, size : int
        Voxels of a region and of the whole volume along the axis. A region that is cut at the end
        has its centre where a whole one would.
    """
    # Twice the way from the centre of region 0, in voxels: the middle of voxel v lies at v + 1/2.
    doubled = 2 * np.arange(begin, end, dtype=np.int64) + 1 - kernel
    before, way = doubled // (2 * kernel), doubled % (2 * kernel)
    last = -(-size // kernel) - 1
    return Between(
        before.clip(0, last), (before + (way > 0)).clip(0, last),
        (way / (2 * kernel)).astype(np.float32),
    )


def regions_around(box: Box, kernel_shape: Triple, shape: Triple) -> Box:
    """Return the regions whose maps voxels of `box` need, as a box in the lattice of regions."""
    axes = [between_regions(*axis) for axis in _axes(box, kernel_shape, shape)]
    return Box.between([a.before[0] for a in axes], [a.after[-1] + 1 for a in axes])


def _axes(box: Box, kernel_shape: Triple, shape: Triple):
    return zip(box.offset, box.end, kernel_shape, shape, strict=True)


def equalize(
    grey: np.ndarray, counted: np.ndarray, maps: np.ndarray, *, box: Box, kernel_shape: Triple,
    shape: Triple,
) -> np.ndarray:
    """Map every voxel that counts by the regions around it, interpolated between their centres.

    Regions without a voxel that counts have no say. Nothing depends on where the box begins or ends.

    Parameters
    ----------
    grey : (z, y, x) uint8 array
    counted : (z, y, x) bool array
        Voxels that do not count keep their grey value.
    maps : (rz, ry, rx, 256) uint16 array
        Of the regions `regions_around(box, kernel_shape, shape)`, as `contrast_maps` makes them.
    box : Box
        The voxels of `grey` in the whole volume of `shape` voxels (z, y, x).
    kernel_shape : (3,) int
        Voxels (z, y, x) of a region.

    Returns
    -------
    (z, y, x) uint8 array
    """
    first = regions_around(box, kernel_shape, shape).offset
    z, y, x = (
        between_regions(*axis).counted_from(begin)
        for axis, begin in zip(_axes(box, kernel_shape, shape), first, strict=True)
    )
    result = np.empty_like(grey)
    _interpolate(
        grey, counted, maps, z.before, z.after, z.way, y.before, y.after, y.way, x.before, x.after,
        x.way, result,
    )
    return result


@njit(cache=True, nogil=True)
def _interpolate(grey, counted, maps, z0, z1, wz, y0, y1, wy, x0, x1, wx, result):
    """Blend the maps of a section, then those of a row, so that a voxel looks up two values."""
    n_y, n_x, n_grey = maps.shape[1:]
    section, row = np.empty((n_y, n_x, n_grey), np.float32), np.empty((n_x, n_grey), np.float32)
    # The last entry of a map is 0 only where nothing counts.
    valid = (maps[:, :, :, -1] > 0).astype(np.float32)
    section_valid, row_valid = np.empty((n_y, n_x), np.float32), np.empty(n_x, np.float32)
    one, half, step = np.float32(1), np.float32(0.5), np.float32(1 / STEPS)
    for z in range(grey.shape[0]):
        a, b = one - wz[z], wz[z]
        for i in range(n_y):
            for j in range(n_x):
                section_valid[i, j] = a * valid[z0[z], i, j] + b * valid[z1[z], i, j]
                for g in range(n_grey):
                    below, above = maps[z0[z], i, j, g], maps[z1[z], i, j, g]
                    section[i, j, g] = a * np.float32(below) + b * np.float32(above)
        for y in range(grey.shape[1]):
            a, b = one - wy[y], wy[y]
            for j in range(n_x):
                row_valid[j] = a * section_valid[y0[y], j] + b * section_valid[y1[y], j]
                for g in range(n_grey):
                    row[j, g] = (a * section[y0[y], j, g] + b * section[y1[y], j, g]) * step
            for x in range(grey.shape[2]):
                g = grey[z, y, x]
                if counted[z, y, x]:
                    a, b = one - wx[x], wx[x]
                    value = a * row[x0[x], g] + b * row[x1[x], g]
                    weight = a * row_valid[x0[x]] + b * row_valid[x1[x]]
                    result[z, y, x] = np.uint8(value / weight + half)
                else:
                    result[z, y, x] = g
