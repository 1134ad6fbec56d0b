"""Skeleton-aware distance: 1 on the skeleton of an instance, 0 at its rim, -1 in the background.

A threshold splits instances at necks, as that of a distance to the surface does, but does not lose
thin ones: whatever its width, an instance reaches 1 (doi:10.1007/978-3-031-43993-3_51).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import cc3d
import numpy as np
from scipy import ndimage

from em_blocks.geometry import Nm3, Triple, triple
from em_blocks.kernels.instances.signed_distance import (
    distance_inside,
    distance_reach,
    surface_distance,
)

LEAST_RADIUS = 2.0
"""Pixels: thinner pieces fall off as if they were as wide, so that not every pixel of them is rim."""
STEEP = 0.5
"""Rise of the distance to the surface, nm per nm, that a voxel of the skeleton does not see around it.
On the way from a wall to the middle it is nearly 1, from a right-angled edge 0.7, from a corner 0.58:
edges and corners get no branches."""
LOOKS = (1, 2)
"""Voxels between which that is asked: with one alone, single voxels that stick out of a round surface
would be skeleton."""


def section_distance(
    ids: np.ndarray, *, alpha: float = 1.0, beta: float = 0.8, hole: int = 16
) -> np.ndarray:
    """Compute the distance in every section for itself, piece by piece, in pixels.

    Inside, it is 1 - (e / (alpha m)) ** beta: e is the distance to the skeleton of the piece, m the
    largest e of the piece, at least `LEAST_RADIUS`. A piece ends where the array ends.

    Parameters
    ----------
    ids : (z, y, x) unsigned integer array
        Instances; 0: background. What is connected in a section by faces or corners is a piece.
    alpha, beta : float
        At alpha 1 the farthest pixel has 0; below it, more of the rim has.
    hole : int
        Background that a piece encloses is part of it, if it has fewer pixels.

    Returns
    -------
    (z, y, x) float32 array
        0..1 in instances and their filled holes, -1 elsewhere.
    """
    result = np.full(ids.shape, -1, np.float32)
    for section, found in zip(ids, result, strict=True):
        for where, piece in _pieces(section):
            inside = piece | _small_holes(piece, section[where] == 0, hole)
            away = _away_from(_skeleton(inside), (1.0, 1.0))
            widest = max(LEAST_RADIUS, float(away[inside].max()))
            found[where][inside] = _falling(away[inside], alpha * widest, beta)
    return result


def _falling(away: np.ndarray, width: float | np.ndarray, beta: float) -> np.ndarray:
    return np.maximum(1 - (away / width) ** beta, 0).astype(np.float32)


def _pieces(section: np.ndarray) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Yield the connected pieces of all ids: where each lies, with a pixel of margin, and its mask."""
    numbers = cc3d.connected_components(np.ascontiguousarray(section), connectivity=8)
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbers), start=1):
        where = _with_margin(rows), _with_margin(columns)
        yield where, numbers[where] == number


def _with_margin(axis: slice) -> slice:
    return slice(max(0, axis.start - 1), axis.stop + 1)


def _small_holes(piece: np.ndarray, background: np.ndarray, hole: int) -> np.ndarray:
    """Return the holes of a piece that are all background and have fewer than `hole` pixels."""
    enclosed = ndimage.binary_fill_holes(piece) & ~piece
    if not enclosed.any():
        return enclosed
    holes, n = ndimage.label(enclosed)
    sizes = np.bincount(holes.ravel(), minlength=n + 1)
    empty = np.bincount(holes.ravel(), background.ravel(), minlength=n + 1) == sizes
    fits = empty & (sizes < hole)
    fits[0] = False
    return fits[holes]


def _skeleton(piece: np.ndarray) -> np.ndarray:
    from skimage.morphology import skeletonize  # of the extra [train]

    found = skeletonize(piece)
    return found if found.any() else piece


def _away_from(marked: np.ndarray, size: tuple[float, ...]) -> np.ndarray:
    """Return the distance of every voxel to the nearest that is marked."""
    return distance_inside(~marked, size)


def volume_distance(
    ids: np.ndarray, *, voxel_size: Nm3, largest: float, alpha: float = 1.0, beta: float = 0.8
) -> np.ndarray:
    """Compute the distance in all directions, in nm, from what lies near a voxel alone.

    Inside, it is 1 - (e / (alpha (e + d))) ** beta: d is the distance to the surface, and e that to
    the skeleton, which are the voxels around which d rises nowhere steeply. Both are those of the
    voxel's own instance. With `volume_reach` voxels around it, a block has the values of the whole
    volume, however large its instances are; the end of the array is no surface.

    Parameters
    ----------
    ids : (z, y, x) unsigned integer array
        Instances; 0: background.
    voxel_size : (3,) float
        nm (z, y, x).
    largest : float
        nm: what is deeper inside belongs to the skeleton.
    alpha, beta : float
        As of `section_distance`.

    Returns
    -------
    (z, y, x) float32 array
        0..1 in instances, -1 elsewhere.
    """
    depth = surface_distance(
        ids, np.ones(ids.shape, bool), voxel_size=voxel_size, largest=largest
    ).nm
    skeleton = _ridge(ids, depth, voxel_size) & (ids > 0)
    result = np.full(ids.shape, -1, np.float32)
    numbers = _consecutive(ids)
    for number, where in enumerate(ndimage.find_objects(numbers), start=1):
        inside = numbers[where] == number
        own = skeleton[where] & inside
        if not own.any():  # it lies beyond the array
            own = inside & (depth[where] == depth[where][inside].max())
        away = _away_from(own, voxel_size)[inside]
        result[where][inside] = _falling(away, alpha * (away + depth[where][inside]), beta)
    return result


def volume_reach(largest: float, voxel_size: Nm3) -> Triple:
    """Return the voxels (z, y, x) around a block that decide its values."""
    # Uphill, at least STEEP everywhere, the skeleton is no farther than this; its voxels look at
    # those around them, and all of them at the surface.
    depths, ways = (distance_reach(nm, voxel_size) for nm in (largest, largest / STEEP))
    return triple(depth + way + max(LOOKS) for depth, way in zip(depths, ways, strict=True))


def _consecutive(ids: np.ndarray) -> np.ndarray:
    found = np.unique(ids)
    return np.searchsorted(found[found > 0], ids, side="right").astype(np.int32)


def _ridge(ids: np.ndarray, depth: np.ndarray, voxel_size: Nm3) -> np.ndarray:
    """Return the voxels around which the depth of their instance rises nowhere by `STEEP` nm per nm."""
    ridge = np.ones(ids.shape, bool)
    directions = [d for d in itertools.product((-1, 0, 1), repeat=3) if any(d)]
    for direction, voxels in itertools.product(directions, LOOKS):
        shift = np.array(direction) * voxels
        here, there = (
            tuple(slice(max(0, s), max(0, n + min(0, s))) for s, n in zip(way, ids.shape, strict=True))
            for way in (-shift, shift)
        )
        steep = STEEP * float(np.linalg.norm(shift * voxel_size))
        ridge[here] &= (ids[here] != ids[there]) | (depth[there] - depth[here] < steep)
    return ridge
