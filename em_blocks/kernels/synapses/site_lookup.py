"""Ids of labels at points: the voxel of a point, or the nearest object around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np

from em_blocks.geometry import Triple, triple
from em_blocks.kernels.synapses.table import BACKGROUND, LARGEST_ID


class SiteIds(NamedTuple):
    """What was found at n sites."""

    ids: np.ndarray  # (n,) int64; BACKGROUND where there is nothing
    searched: np.ndarray  # (n,) bool: on background, but an object is near enough


def search_context(search_radius_nm: float, voxel_size: Sequence[float]) -> Triple:
    """Voxels (z, y, x) around a box that sites in it may find an object in."""
    if search_radius_nm == 0:
        return (0, 0, 0)
    return triple(math.ceil(search_radius_nm / v + 0.5) for v in voxel_size)


def ids_at_sites(
    labels: np.ndarray,
    sites: np.ndarray,
    *,
    corner: Sequence[int],
    voxel_size: Sequence[float],
    search_radius_nm: float = 0.0,
) -> SiteIds:
    """The object at every site.

    It is that of the voxel that holds the site. Where this is background, it is that of the nearest
    voxel of any object, by the distance from the site to the centre of the voxel; of equally near
    ones the smallest id. Voxels beyond `labels` are background.

    Parameters
    ----------
    labels : (z, y, x) integer array
        A box of a volume.
    sites : (n, 3) float array
        Voxels of the volume, as from `as_voxels`; their voxels must lie in the box.
    corner : (3,) int
        First voxel of the box in the volume. Positions are of the volume, not of the box, so that
        another box with the same surroundings gives the same ids, ties included.
    voxel_size : (3,) float
        nm (z, y, x).
    search_radius_nm : float
        Largest distance that is searched, included; 0 for no search.

    Raises
    ------
    ValueError
        If a site is not in the box, or an id is negative or above 2**63 - 1.
    """
    corner = np.asarray(corner, np.int64)
    voxels = np.floor(sites).astype(np.int64).reshape(-1, 3) - corner
    if ((voxels < 0) | (voxels >= labels.shape)).any():
        raise ValueError(f"a site lies outside of the {labels.shape} voxels from {tuple(corner)} on")
    ids = labels[tuple(voxels.T)]
    lost = np.flatnonzero(ids == BACKGROUND)
    if len(lost) and search_radius_nm > 0:
        ids[lost] = _nearest(
            labels, np.asarray(sites, np.float64)[lost], corner,
            np.asarray(voxel_size, np.float64), float(search_radius_nm),
        )
    _check_ids(ids)
    searched = np.zeros(len(ids), bool)
    searched[lost] = ids[lost] != BACKGROUND
    return SiteIds(ids.astype(np.int64), searched)


def _check_ids(ids: np.ndarray) -> None:
    wrong = ids[(ids > LARGEST_ID) | (ids < 0)] if ids.dtype.itemsize == 8 else ids[ids < 0]
    if len(wrong):
        raise ValueError(
            f"the id {wrong[0]} is not within 0 and 2^63 - 1, and databases hold no other ones"
        )


@numba.njit(cache=True)
def _nearest(labels, sites, corner, voxel_size, radius):
    """Id of the nearest labelled voxel of every site; 0 where none is within `radius`."""
    found = np.zeros(len(sites), labels.dtype)
    first, last = np.empty(3, np.int64), np.empty(3, np.int64)
    for n in range(len(sites)):
        for axis in range(3):
            reach = radius / voxel_size[axis]
            low = math.ceil(sites[n, axis] - reach - 0.5) - 1
            high = math.floor(sites[n, axis] + reach - 0.5) + 1
            first[axis] = max(low, corner[axis])
            last[axis] = min(high, corner[axis] + labels.shape[axis] - 1)
        best = radius * radius
        for z in range(first[0], last[0] + 1):
            along_z = ((sites[n, 0] - (z + 0.5)) * voxel_size[0]) ** 2
            if along_z > best:
                continue
            for y in range(first[1], last[1] + 1):
                along_zy = along_z + ((sites[n, 1] - (y + 0.5)) * voxel_size[1]) ** 2
                if along_zy > best:
                    continue
                for x in range(first[2], last[2] + 1):
                    squared = along_zy + ((sites[n, 2] - (x + 0.5)) * voxel_size[2]) ** 2
                    label = labels[z - corner[0], y - corner[1], x - corner[2]]
                    if label == 0 or squared > best:
                        continue
                    if squared < best or found[n] == 0 or label < found[n]:
                        best, found[n] = squared, label
    return found
