"""World positions as voxels of a volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ROUNDING_VOXELS = 1e-6
"""nm become voxels with errors of some 1e-10 voxels; no position is meant more exactly than this."""


def as_voxels(
    positions: np.ndarray, *, voxel_size: Sequence[float], offset: Sequence[float]
) -> np.ndarray:
    """World positions in voxels of a volume, so that the floor is the voxel that holds a position.

    A position on the corner of a voxel stays there, whatever rounding errors say: otherwise half
    of those of a volume with voxels of 4.6 nm would fall into the voxel before.

    Parameters
    ----------
    positions : (n, 3) float array
        nm (z, y, x).
    voxel_size, offset : (3,) float
        nm (z, y, x).

    Returns
    -------
    (n, 3) float64 array
    """
    voxels = (np.asarray(positions, np.float64).reshape(-1, 3) - offset) / voxel_size
    nearest = np.rint(voxels)
    return np.where(np.abs(voxels - nearest) < ROUNDING_VOXELS, nearest, voxels)
