"""Local maxima of few voxels in a large array."""

from __future__ import annotations

import itertools

import numpy as np
from numba import njit

from em_blocks.geometry import Nm3
from em_blocks.kernels.components.sparse_components import Groups, connected


def ellipsoid(radius_nm: Nm3, voxel_size: Nm3) -> np.ndarray:
    """Shifts to the voxels in an ellipsoid around a voxel.

    Parameters
    ----------
    radius_nm : (3,) floats
        Half axes (z, y, x). Taken as one voxel if less: then only the neighbours by faces are in it
        along that axis.
    voxel_size : (3,) floats
        nm (z, y, x).

    Returns
    -------
    (k, 3) int64 array
        Voxels, nearest first, without (0, 0, 0).
    """
    radius = np.maximum(np.asarray(radius_nm, float) / np.asarray(voxel_size, float), 1.0)
    reach = [range(-n, n + 1) for n in np.floor(radius + 1e-9).astype(int)]
    shifts = np.array(list(itertools.product(*reach)))
    distance = np.linalg.norm(shifts / radius, axis=1)
    # What lies on the ellipsoid belongs to it, on all sides alike.
    inside = (distance <= 1 + 1e-9) & shifts.any(axis=1)
    order = np.argsort(distance[inside].round(9), kind="stable")
    return shifts[inside][order]


def plateaus(values: np.ndarray, voxels: np.ndarray, shifts: np.ndarray) -> Groups:
    """Connected groups of voxels than which nothing near is larger.

    Two groups of one value in reach of each other are both there. Beyond the array nothing is larger:
    groups within reach of its border may be none in a larger array.

    Parameters
    ----------
    values : (z, y, x) array
        C-contiguous.
    voxels : (m,) int64 array
        Voxels looked at, with all that are larger: indices into the flat array, in raster order.
    shifts : (k, 3) int64 array
        To the voxels that are near, those by faces among them; nearest first.

    Returns
    -------
    Groups
        In the order of first voxels. All voxels of a group have one value.
    """
    if not len(voxels):
        return connected(voxels, values.shape)
    # Where a network is sure there are large plateaus of its largest value: those need no search.
    largest = _largest_nearby(values, voxels, shifts, values.ravel()[voxels].max())
    return connected(voxels[largest], values.shape)


@njit(cache=True, nogil=True)
def _largest_nearby(values, voxels, shifts, ceiling):
    """Find voxels that have nothing larger near them."""
    nz, ny, nx = values.shape
    found = np.ones(len(voxels), np.bool_)
    for i in range(len(voxels)):
        row = voxels[i] // nx
        z, y, x = row // ny, row % ny, voxels[i] - row * nx
        here = values[z, y, x]
        if here == ceiling:
            continue
        for k in range(len(shifts)):
            a, b, c = z + shifts[k, 0], y + shifts[k, 1], x + shifts[k, 2]
            if 0 <= a < nz and 0 <= b < ny and 0 <= c < nx and values[a, b, c] > here:
                found[i] = False
                break
    return found
