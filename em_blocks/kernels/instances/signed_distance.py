"""Distance to the surface of instances, in nm, and where it is certain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import edt
import numpy as np

from em_blocks.geometry import Nm3, Triple, triple

SLACK = 1e-4
"""Share of a distance in nm that rounding may cost."""
ACROSS_SECTIONS = 1e6
"""Thickness of sections that are measured each for itself, in the largest distance that counts."""


class SurfaceDistance(NamedTuple):
    """Distances of voxels to the surface of instances.

    Attributes
    ----------
    nm : (z, y, x) float32 array
        From the centre of a voxel of an object to that of the nearest voxel outside of this object;
        of the background, minus the distance to the nearest voxel of an object. No voxel has 0.
    certain : (z, y, x) bool array
        Voxels whose distance does not depend on what unknown voxels are.
    """

    nm: np.ndarray
    certain: np.ndarray


def surface_distance(
    ids: np.ndarray, known: np.ndarray, *, voxel_size: Nm3, largest: float, sections: bool = False
) -> SurfaceDistance:
    """Measure how far every voxel is from the surface, up to `largest` nm.

    An instance ends where another one begins. The end of the array is no surface: with
    `distance_reach` voxels around it, a block has the distances of the whole volume.

    Parameters
    ----------
    ids : (z, y, x) unsigned integer array
        Instances; 0: background.
    known : (z, y, x) bool array
        Voxels whose id is known.
    voxel_size : (3,) float
        nm (z, y, x).
    largest : float
        nm; larger distances are this one.
    sections : bool
        Whether every section is measured for itself.
    """
    ids = np.ascontiguousarray(np.where(known, ids, ids.dtype.type(0)))
    size = (ACROSS_SECTIONS * largest, *voxel_size[1:]) if sections else voxel_size
    nm = np.where(ids > 0, distance_inside(ids, size), -distance_inside(ids == 0, size))
    certain = known
    if not known.all():
        to_unknown = distance_inside(known, size)
        nearer = np.abs(nm) < to_unknown * (1 - SLACK)
        certain = known & (nearer | (to_unknown > largest * (1 + SLACK)))
    return SurfaceDistance(nm.clip(-largest, largest), certain)


def distance_reach(largest: float, voxel_size: Nm3, *, sections: bool = False) -> Triple:
    """Return the voxels (z, y, x) around a block that decide its distances up to `largest` nm."""
    reach = triple(int(largest * (1 + SLACK) // size) + 1 for size in voxel_size)
    return (0, *reach[1:]) if sections else reach


def distance_inside(values: np.ndarray, size: Sequence[float]) -> np.ndarray:
    """Return the distance of every voxel to the nearest one of another value; 0 where the value is 0.

    Parameters
    ----------
    values : array of integers or bool
    size : sequence of float
        Of a voxel, along every axis.
    """
    # On bool, edt takes ten times as long as on the same bytes (3.1).
    values = np.ascontiguousarray(values.view(np.uint8) if values.dtype == bool else values)
    return edt.edt(values, anisotropy=tuple(size), black_border=False, parallel=1)
