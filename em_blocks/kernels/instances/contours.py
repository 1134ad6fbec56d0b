"""Contours: the voxels along the surface of instances, which keep those apart that touch.

Foreground and contour together are the usual targets of instance segmentation:
doi:10.1016/j.media.2016.08.008 (objects), doi:10.1109/TMI.2021.3097826 (mitochondria).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from em_blocks.geometry import Nm3
from em_blocks.kernels.instances.signed_distance import SLACK, surface_distance


class Contours(NamedTuple):
    """Contours, and where they are certain; (z, y, x) bool arrays."""

    marked: np.ndarray
    certain: np.ndarray


def contours(
    ids: np.ndarray, known: np.ndarray, *, voxel_size: Nm3, inwards: float, outwards: float,
    sections: bool = False,
) -> Contours:
    """Mark voxels near the surface of instances, also where two of them touch.

    Parameters
    ----------
    ids : (z, y, x) unsigned integer array
        Instances; 0: background.
    known : (z, y, x) bool array
        Voxels whose id is known.
    voxel_size : (3,) float
        nm (z, y, x).
    inwards, outwards : float
        nm from the centre of a voxel of an object to that of the nearest voxel outside of the
        object, and from one of the background to the nearest one of an object. A width below the
        voxel size marks nothing along that axis.
    sections : bool
        Whether every section has contours of its own, whatever lies above and below it.
    """
    nm, certain = surface_distance(
        ids, known, voxel_size=voxel_size, largest=max(inwards, outwards) * (1 + 2 * SLACK),
        sections=sections,
    )
    inside = (nm > 0) & (nm <= inwards * (1 + SLACK))
    return Contours(inside | ((nm < 0) & (nm >= -outwards * (1 + SLACK))), certain)
