"""How deep voxels lie inside of a component that is given as a list of voxels.

The border of a component is made of the faces between its voxels and all others. The distance of a
voxel is that from its centre to the nearest centre of such a face: what a Euclidean distance
transform gives on a grid of twice the resolution on which these faces are the background.

All arithmetic is exact: on differences of voxel indices and on lengths in whole picometres. So a
component has the same distances wherever it lies, and what is equally deep is seen to be.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def half_voxel(voxel_size: tuple[float, float, float]) -> np.ndarray:
    """Half a voxel in picometres, (3,) int64, from its size in nm."""
    return np.rint(np.asarray(voxel_size, float) * 500).astype(np.int64)


@njit(cache=True, nogil=True)
def neighbors(voxels: np.ndarray, ny: int, nx: int) -> np.ndarray:
    """Neighbours by faces in a list of voxels.

    Parameters
    ----------
    voxels : (n,) int64 array
        Indices into a flat array (z, ny, nx), in raster order.

    Returns
    -------
    (n, 6) int32 array
        Places in the list of the voxels before and after along z, y and x; -1: not in the list.
    """
    found = np.full((len(voxels), 6), -1, np.int32)
    above = behind = 0
    for i in range(len(voxels)):
        here = voxels[i]
        row = here // nx
        if i > 0 and voxels[i - 1] == here - 1 and here != row * nx:
            found[i, 4], found[i - 1, 5] = i - 1, i
        while voxels[above] < here - nx:
            above += 1
        if voxels[above] == here - nx and row % ny > 0:
            found[i, 2], found[above, 3] = above, i
        while voxels[behind] < here - ny * nx:
            behind += 1
        if voxels[behind] == here - ny * nx:
            found[i, 0], found[behind, 1] = behind, i
    return found


@njit(cache=True, nogil=True)
def doubled(voxels: np.ndarray, ny: int, nx: int) -> np.ndarray:
    """Centres of voxels (z, y, x) on the grid of twice the resolution, (n, 3) int32."""
    points = np.empty((len(voxels), 3), np.int32)
    for i in range(len(voxels)):
        row = voxels[i] // nx
        points[i, 0], points[i, 1] = row // ny * 2, row % ny * 2
        points[i, 2] = (voxels[i] - row * nx) * 2
    return points


@njit(cache=True, nogil=True)
def deepest(voxels: np.ndarray, starts: np.ndarray, ny: int, nx: int, half: np.ndarray) -> np.ndarray:
    """The voxel of each component that is farthest from its border, of several the first.

    Parameters
    ----------
    voxels, starts : int64 arrays
        As in `em_blocks.kernels.components.sparse_components.Groups`.
    half : (3,) int64 array
        From `half_voxel`.

    Returns
    -------
    (n,) int64 array
        Indices into the flat array.
    """
    found = np.empty(len(starts) - 1, np.int64)
    for group in range(len(found)):
        own = voxels[starts[group] : starts[group + 1]]
        found[group] = own[_deepest(own, ny, nx, half)]
    return found


@njit(cache=True, nogil=True)
def _deepest(voxels, ny, nx, half):
    """Place in the list of the first of the deepest voxels.

    Distances to the border straight along the axes are known at once, and no true one is larger.
    Only voxels that could still be the deepest are compared with all faces, and of most of them the
    first faces show that they are not.
    """
    around = neighbors(voxels, ny, nx)
    points = doubled(voxels, ny, nx)
    straight = _straight(around, half, 0)
    best = np.argmax(straight)
    faces, first = _faces(points, around, 0)
    largest = _squared(best, points, faces, first, straight[best], half, -1)
    for i in range(len(voxels)):
        if straight[i] > largest or (straight[i] == largest and i < best):
            least = largest if i < best else largest + 1
            squared = _squared(i, points, faces, first, straight[i], half, least)
            if squared >= least:
                best, largest = i, squared
    return best


@njit(cache=True, nogil=True)
def depth_in_sections(around: np.ndarray, points: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Squared distance of every voxel to the border of the component in its section.

    Parameters
    ----------
    around : (n, 6) int32 array
        From `neighbors`.
    points : (n, 3) int32 array
        From `doubled`.
    half : (3,) int64 array

    Returns
    -------
    (n,) int64 array
        Square picometres.
    """
    depth = _straight(around, half, 1)
    faces, first = _faces(points, around, 1)
    for i in range(len(points)):
        depth[i] = _squared_in_section(i, points, faces, first, depth[i], half)
    return depth


@njit(cache=True, nogil=True)
def _straight(around, half, axis):
    """Squared distance to the nearest face along the axes from `axis` on."""
    n = len(around)
    nearest = np.full(n, np.iinfo(np.int64).max)
    steps = np.empty(n, np.int64)
    for side in range(2 * axis, 6):
        for k in range(n):
            i = k if side % 2 == 0 else n - 1 - k
            before = around[i, side]
            steps[i] = 1 if before < 0 else steps[before] + 2
            nearest[i] = min(nearest[i], (steps[i] * half[side // 2]) ** 2)
    return nearest


@njit(cache=True, nogil=True)
def _faces(points, around, axis):
    """Faces across the axes from `axis` on, in the order of their voxels.

    Rows hold twice the coordinates of the face's centre, and the voxel; `first` says where the faces
    of each voxel begin.
    """
    first = np.zeros(len(around) + 1, np.int64)
    for i in range(len(around)):
        first[i + 1] = first[i]
        for side in range(2 * axis, 6):
            first[i + 1] += around[i, side] < 0
    faces, n = np.empty((first[-1], 4), np.int32), 0
    for i in range(len(around)):
        for side in range(2 * axis, 6):
            if around[i, side] < 0:
                faces[n, :3], faces[n, 3] = points[i], i
                faces[n, side // 2] += 2 * (side % 2) - 1
                n += 1
    return faces, first


@njit(cache=True, nogil=True)
def _squared(i, points, faces, first, nearest, half, least):
    """Squared distance to the nearest face, which is `nearest` or less; or, once it is sure to be less
    than `least`, anything less. Faces are looked at from the voxel's own on, both ways."""
    for step in (1, -1):
        k = first[i] if step > 0 else first[i] - 1
        while 0 <= k < len(faces):
            sections = abs(points[faces[k, 3], 0] - points[i, 0])
            if sections > 0 and ((sections - 1) * half[0]) ** 2 >= nearest:
                break
            nearest = min(nearest, _between(points[i], faces[k], half))
            if nearest < least:
                return nearest
            k += step
    return nearest


@njit(cache=True, nogil=True)
def _squared_in_section(i, points, faces, first, nearest, half):
    """Squared distance to the nearest face in the same section, which is `nearest` or less."""
    for step in (1, -1):
        k = first[i] if step > 0 else first[i] - 1
        while 0 <= k < len(faces) and faces[k, 0] == points[i, 0]:
            rows = abs(points[faces[k, 3], 1] - points[i, 1])
            if rows > 0 and ((rows - 1) * half[1]) ** 2 >= nearest:
                break
            nearest = min(nearest, _between(points[i], faces[k], half))
            k += step
    return nearest


@njit(cache=True, inline="always")
def _between(point, face, half):
    dz, dy, dx = face[0] - point[0], face[1] - point[1], face[2] - point[2]
    return (dz * half[0]) ** 2 + (dy * half[1]) ** 2 + (dx * half[2]) ** 2
