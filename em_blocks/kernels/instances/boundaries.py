"""Boundaries between fragments of instances, and whether what lies on both sides is one instance.

A flood from many seeds cuts instances at their necks too. Whether a boundary is a neck or a contact of
two instances is told by what the maps say along all of it, by its area, and by the size of both sides.

References
----------
Merging fragments by classified boundaries: Andres et al. 2008, doi:10.1007/978-3-540-69321-5_15;
Nunez-Iglesias et al. 2013, doi:10.1371/journal.pone.0071715.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from em_blocks.geometry import Nm3
from em_blocks.kernels.segmentation.pair_table import doubled, pair_key, place

BINS = 32
"""Equal parts of 0..255 in which values along a boundary are counted."""

_BIN = 256 // BINS
_CONTOUR, _DISTANCE = 3, 3 + BINS  # columns, after those of faces


class Boundaries(NamedTuple):
    """Boundaries by (u, v), u < v. All are exact counts, so that those of blocks add up.

    Attributes
    ----------
    u, v : (n,) int64 arrays
        Fragments.
    faces : (n, 3) int64 array
        Faces between voxels of both, across z, y, x.
    contour : (n, BINS) int64 array
        Faces by their contour: the higher one of both voxels.
    distance : (n, BINS) int64 array
        Faces by their distance: the lower one of both voxels.
    """

    u: np.ndarray
    v: np.ndarray
    faces: np.ndarray
    contour: np.ndarray
    distance: np.ndarray


def boundaries(
    labels: np.ndarray, contour: np.ndarray, distance: np.ndarray, *, begin: Sequence[int] = (0, 0, 0)
) -> Boundaries:
    """Count the faces between fragments, each by the box of its later voxel.

    Parameters
    ----------
    labels : (z, y, x) uint32 array
        Fragments; 0 is background.
    contour, distance : (z, y, x) uint8 arrays
    begin : (3,) int
        First counted voxel; what lies before is context.
    """
    keys, counts = _counted(labels, contour, distance, np.asarray(begin, np.int64))
    taken = np.flatnonzero(keys)
    taken = taken[np.argsort(keys[taken])]
    keys, counts = keys[taken], counts[taken]
    return Boundaries(
        (keys >> np.uint64(32)).astype(np.int64), (keys & np.uint64(0xFFFFFFFF)).astype(np.int64) - 1,
        counts[:, :_CONTOUR], counts[:, _CONTOUR:_DISTANCE], counts[:, _DISTANCE:],
    )


def added(parts: Boundaries) -> Boundaries:
    """Return the boundaries of the whole, from rows of its parts in any order."""
    pairs, member = np.unique(np.stack([parts.u, parts.v]), axis=1, return_inverse=True)
    member = member.ravel()

    def total(rows: np.ndarray) -> np.ndarray:
        found = np.zeros((pairs.shape[1], rows.shape[1]), np.int64)
        np.add.at(found, member, rows)
        return found

    return Boundaries(*pairs, *(total(rows) for rows in parts[2:]))


@njit(cache=True, nogil=True)
def _counted(labels, contour, distance, begin):
    nz, ny, nx = labels.shape
    keys, counts, used = np.zeros(256, np.uint64), np.zeros((256, 3 + 2 * BINS), np.int64), 0
    for z in range(begin[0], nz):
        for y in range(begin[1], ny):
            for x in range(begin[2], nx):
                a = labels[z, y, x]
                if a == 0:
                    continue
                for axis in range(3):
                    bz, by, bx = z - (axis == 0), y - (axis == 1), x - (axis == 2)
                    if bz < 0 or by < 0 or bx < 0:
                        continue
                    b = labels[bz, by, bx]
                    if b == a or b == 0:
                        continue
                    key = pair_key(a, b)
                    here = place(keys, key)
                    if keys[here] == 0:
                        if 2 * used > len(keys):
                            keys, counts = _doubled(keys, counts)
                            here = place(keys, key)
                        keys[here] = key
                        used += 1
                    high = max(contour[z, y, x], contour[bz, by, bx])
                    low = min(distance[z, y, x], distance[bz, by, bx])
                    counts[here, axis] += 1
                    counts[here, _CONTOUR + high // _BIN] += 1
                    counts[here, _DISTANCE + low // _BIN] += 1
    return keys, counts


@njit(cache=True)
def _doubled(keys, counts):
    larger = doubled(keys)
    values = np.zeros((len(larger), counts.shape[1]), np.int64)
    for old in range(len(keys)):
        if keys[old] != 0:
            values[place(larger, keys[old])] = counts[old]
    return larger, values


FEATURES = (
    "contour_10", "contour_50", "contour_90", "distance_50", "distance_90", "area_z", "area_yx",
    "smaller", "larger",
)
"""Of a boundary: percentiles of contour and distance, 0..1; natural logarithms of the area across z and
in plane, nm2, and of the volumes of both sides, nm3, each with one face or voxel added."""


def features(
    found: Boundaries, volumes_nm3: tuple[np.ndarray, np.ndarray], voxel_size: Nm3
) -> np.ndarray:
    """Return the features of boundaries, (n, len(FEATURES)) float64.

    Parameters
    ----------
    volumes_nm3 : two (n,) arrays
        Of the fragments `u` and `v`.
    voxel_size : (3,) floats
        nm (z, y, x).
    """
    z, y, x = voxel_size
    of_faces = np.array([y * x, z * x, z * y])
    area = found.faces * of_faces
    small, large = np.minimum(*volumes_nm3), np.maximum(*volumes_nm3)
    return np.stack([
        *(_percentiles(found.contour, p) for p in (10, 50, 90)),
        *(_percentiles(found.distance, p) for p in (50, 90)),
        np.log(area[:, 0] + y * x), np.log(area[:, 1] + area[:, 2] + z * x),
        np.log(small + z * y * x), np.log(large + z * y * x),
    ], axis=1)


def _percentiles(histogram: np.ndarray, percent: float) -> np.ndarray:
    """Return the percentile of every row, 0..1, linear within a bin."""
    total = histogram.cumsum(axis=1)
    wanted = total[:, -1] * percent / 100
    bins = (total < wanted[:, None]).sum(axis=1)
    rows = np.arange(len(histogram))
    here = histogram[rows, bins]
    return (bins + (wanted - (total[rows, bins] - here)) / here) / BINS
