"""Which voxels lie deep in a mask, told from their surroundings alone.

Distances are those of centres of voxels to the nearest centre of a voxel outside of the mask, and are
compared in whole square picometres: the same in whatever box they are computed.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from em_blocks.geometry import Nm3, Triple, triple

_PM = 1000  # picometres per nm


def depth_reach(depth_nm: float, voxel_size: Nm3) -> Triple:
    """Return the voxels (z, y, x) on each side that tell whether a voxel is as deep as that."""
    return triple(int(np.ceil(depth_nm / v)) for v in voxel_size)


def is_deep(mask: np.ndarray, depth_nm: float, voxel_size: Nm3) -> np.ndarray:
    """Return where no voxel outside of the mask is nearer than `depth_nm`.

    Parameters
    ----------
    mask : (z, y, x) bool array
        What lies beyond it counts as inside; so voxels nearer than `depth_reach` to a side of the array
        may be less deep than they seem.
    depth_nm : float
    voxel_size : (3,) floats
        nm (z, y, x).

    Returns
    -------
    (z, y, x) bool array
    """
    limit = round(depth_nm * _PM) ** 2
    steps = np.rint(np.asarray(voxel_size) * _PM).astype(np.int64)
    reach = np.asarray(depth_reach(depth_nm, voxel_size))
    squared = _along_rows(mask, steps[2], limit)
    for axis in (1, 0):
        squared = _along(np.moveaxis(squared, axis, 1), steps[axis], reach[axis], limit)
        squared = np.moveaxis(squared, 1, axis)
    return squared >= limit


@njit(cache=True, nogil=True)
def _along_rows(mask, step, limit):
    """Squared distance to the nearest voxel outside in the same row, `limit` at most."""
    nz, ny, nx = mask.shape
    found = np.empty(mask.shape, np.int64)
    for z in range(nz):
        for y in range(ny):
            last = -1
            for x in range(nx):
                if not mask[z, y, x]:
                    last = x
                found[z, y, x] = limit if last < 0 else min(limit, ((x - last) * step) ** 2)
            last = -1
            for x in range(nx - 1, -1, -1):
                if not mask[z, y, x]:
                    last = x
                if last >= 0:
                    found[z, y, x] = min(found[z, y, x], ((last - x) * step) ** 2)
    return found


@njit(cache=True, nogil=True)
def _along(squared, step, reach, limit):
    """Take in the voxels before and after along the second axis."""
    found = squared.copy()
    for i in range(found.shape[0]):
        for j in range(found.shape[1]):
            for k in range(found.shape[2]):
                least = squared[i, j, k]
                if least == 0:
                    continue
                for other in range(max(0, j - reach), min(found.shape[1], j + reach + 1)):
                    least = min(least, squared[i, other, k] + ((other - j) * step) ** 2)
                found[i, j, k] = min(least, limit)
    return found
