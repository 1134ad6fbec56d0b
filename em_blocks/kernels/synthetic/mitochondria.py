"""Mitochondria as they grow in tissue: bent tubes that touch, branch and thin out to necks.

They are grown once, as spheres along curves in nm. Their voxels are then painted for any box, with the
same result in every box that holds a voxel: a volume of any size is made block by block.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from scipy import ndimage
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from em_blocks.kernels.synthetic.free_space import FreeSpace
from em_blocks.kernels.transforms.noise import smooth_noise_in

STEP_NM = 25.0  # spacing of spheres along a mitochondrion
LENGTH_NM, BRANCH_NM = (350.0, 1800.0), (250.0, 700.0)
RADIUS_NM = (70.0, 135.0)
NECKED, BRANCHED = 0.3, 0.25  # shares of all mitochondria
NECK_DEPTH, NECK_LENGTH_NM = (0.4, 0.7), (50.0, 110.0)  # share of the radius; standard deviation
# Of a neck: those of mitochondria are 40 to 200 nm thick (Vincent 2017, doi:10.1016/j.tcb.2017.08.009).
LEAST_RADIUS_NM = 42.0
GAP_NM = 22.0  # between mitochondria that do not touch, at least
OVERLAP_NM = (15.0, 40.0)  # of the tubes of two that touch, which share it
ALONGSIDE = 0.6  # share of those that touch lying side by side
ROUGH_NM, ROUGH_SCALE_NM = 5.0, 90.0  # height and width of the bumps of the surface
_TRIES = 12  # places for one mitochondrion


class Mitochondria(NamedTuple):
    """Spheres along mitochondria, those of one behind each other.

    Attributes
    ----------
    position : (n, 3) float64 array
        nm (z, y, x) from the corner of the volume.
    radius : (n,) float64 array
        nm.
    body : (n,) int64 array
        Ids from 1, ascending.
    touching : (k, 2) int64 array
        Ids that were grown to touch, each pair once.
    seed : int
    """

    position: np.ndarray
    radius: np.ndarray
    body: np.ndarray
    touching: np.ndarray
    seed: int

    def __len__(self) -> int:
        """Return the number of mitochondria."""
        return int(self.body[-1]) if len(self.body) else 0


class _Tube(NamedTuple):
    position: np.ndarray
    radius: np.ndarray


def grow_mitochondria(
    extent_nm: Sequence[float], *, seed: int, per_um3: float = 4.0, touching: float = 0.4
) -> Mitochondria:
    """Grow mitochondria around points of a box; fewer than wanted where there is no room.

    Parameters
    ----------
    extent_nm : (3,) floats
        Of the box, nm (z, y, x). What reaches beyond it is cut off; parts of one that are not
        connected within the box have ids of their own.
    seed : int
        Same arguments and seed, same mitochondria.
    per_um3 : float
        Mitochondria per cubic micrometre; 4 fill about an eighth of the volume.
    touching : float
        Chance of each to get a neighbour that touches it, which may get another one.
    """
    rng = np.random.default_rng(seed)
    extent = np.asarray(extent_nm, float)
    wanted = round(per_um3 * float(np.prod(extent)) / 1e9)
    space, pairs = FreeSpace(2 * RADIUS_NM[1] * 1.3 + GAP_NM), []
    for _ in range(_TRIES * wanted):
        if len(space) >= wanted:
            break
        tube = _mitochondrion(rng, rng.uniform(0, extent), _direction(rng))
        if space.clearance(*tube) < GAP_NM:
            continue
        number = space.add(*tube)
        while len(space) < wanted and rng.random() < touching:
            guest = _guest_with_room(rng, tube, number, space)
            if guest is None:
                break
            pairs.append((number, space.add(*guest)))
            number, tube = len(space), guest
    return _cut(Mitochondria(*space.spheres(), _pairs(pairs), seed), extent)


def _cut(grown: Mitochondria, extent: np.ndarray) -> Mitochondria:
    """Keep spheres around points of a box: where two overlap, they are connected within it."""
    inside = np.all((grown.position >= 0) & (grown.position <= extent), axis=1)
    ends = np.searchsorted(grown.body, np.arange(1, len(grown) + 2))
    parts: list[_Tube] = []
    ids_of = {}  # the parts of each mitochondrion
    for number, (begin, end) in enumerate(itertools.pairwise(ends), start=1):
        own = begin + np.flatnonzero(inside[begin:end])
        found = _parts(_Tube(grown.position[own], grown.radius[own]))
        ids_of[number] = range(len(parts) + 1, len(parts) + len(found) + 1)
        parts += found
    number_of = np.repeat(np.arange(len(parts)) + 1, [len(part.radius) for part in parts])
    pairs = [
        (one, other)
        for a, b in grown.touching.tolist()
        for one, other in itertools.product(ids_of[a], ids_of[b])
        if _gap(parts[one - 1], parts[other - 1]) < 0
    ]
    none = _Tube(np.empty((0, 3)), np.empty(0))
    position, radius = (np.concatenate(columns) for columns in zip(none, *parts, strict=True))
    return Mitochondria(position, radius, number_of, _pairs(pairs), grown.seed)


def _parts(tube: _Tube) -> list[_Tube]:
    """The connected parts of a tube, the largest first; without those that nearly touch it."""
    near = _gaps(tube, tube) < 0
    number = connected_components(near, directed=False)[1]
    parts = [_Tube(*(column[number == n] for column in tube)) for n in np.unique(number)]
    parts.sort(key=lambda part: -len(part.radius))
    kept: list[_Tube] = []
    for part in parts:
        if all(_gap(part, other) >= GAP_NM for other in kept):
            kept.append(part)
    return kept


def _gap(one: _Tube, other: _Tube) -> float:
    return float(_gaps(one, other).min())


def _gaps(one: _Tube, other: _Tube) -> np.ndarray:
    """Distances of the surfaces of all spheres of two tubes, nm; below 0 where they overlap."""
    return cdist(one.position, other.position) - one.radius[:, None] - other.radius


def _pairs(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, np.int64).reshape(-1, 2)


def _mitochondrion(rng: np.random.Generator, center: np.ndarray, heading: np.ndarray) -> _Tube:
    """A tube around a point, with a branch and a neck by chance."""
    radius = rng.uniform(*RADIUS_NM)
    curve, directions = _curve(rng, rng.uniform(*LENGTH_NM), heading)
    tube = _Tube(curve + center - curve[len(curve) // 2], radius * _thickness(rng, len(curve)))
    if rng.random() < BRANCHED:
        at = rng.integers(len(curve) // 4, max(len(curve) * 3 // 4, len(curve) // 4 + 1))
        aside = _unit(np.cross(directions[at], _direction(rng)) + 0.4 * directions[at])
        branch, _ = _curve(rng, rng.uniform(*BRANCH_NM), aside)
        thin = np.minimum(0.85 * radius * _thickness(rng, len(branch)), 1.1 * radius)
        tube = _Tube(
            np.concatenate([tube.position, branch - branch[0] + tube.position[at]]),
            np.concatenate([tube.radius, thin]),
        )
    return tube._replace(radius=np.maximum(tube.radius, LEAST_RADIUS_NM))


def _curve(
    rng: np.random.Generator, length: float, heading: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Points and directions of a smooth random walk."""
    steps = max(2, round(length / STEP_NM))
    turns = ndimage.gaussian_filter1d(rng.standard_normal((steps, 3)), 6, axis=0)
    directions = _unit(heading + 0.16 * np.cumsum(turns, axis=0))
    return np.cumsum(directions * STEP_NM, axis=0), directions


def _thickness(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Thickness along a tube, around 1, with a neck by chance."""
    swelling = ndimage.gaussian_filter1d(rng.standard_normal(steps + 24), 4)[12 : steps + 12]
    thickness = np.exp(0.35 * swelling)
    if rng.random() < NECKED:
        along = np.arange(steps) * STEP_NM
        middle = rng.uniform(0.3, 0.7) * steps * STEP_NM
        dent = np.exp(-0.5 * ((along - middle) / rng.uniform(*NECK_LENGTH_NM)) ** 2)
        thickness *= 1 - rng.uniform(*NECK_DEPTH) * dent
    return np.minimum(thickness, 1.3)


def _guest_with_room(
    rng: np.random.Generator, host: _Tube, number: int, space: FreeSpace
) -> _Tube | None:
    """A mitochondrion that touches another one and none besides; None if no try fits."""
    for _ in range(_TRIES):
        guest = _guest(rng, host)
        if space.clearance(*guest, apart_from=number) >= GAP_NM:
            return guest
    return None


def _guest(rng: np.random.Generator, host: _Tube) -> _Tube:
    """A mitochondrion that touches another one, side by side or anyhow."""
    heading = _direction(rng)
    if rng.random() < ALONGSIDE:
        n = len(host.position) // 2  # two spheres at least
        heading = _unit(host.position[n] - host.position[n - 1] + 0.2 * STEP_NM * heading)
    guest = _mitochondrion(rng, np.zeros(3), heading)
    way = np.cross(heading, _direction(rng)) if rng.random() < ALONGSIDE else _direction(rng)
    start = host.position[rng.integers(len(host.position))]
    guest = guest._replace(position=guest.position + start)
    return guest._replace(position=guest.position + _unit(way) * _way_out(
        host, guest, _unit(way), rng.uniform(*OVERLAP_NM)))


def _way_out(host: _Tube, guest: _Tube, way: np.ndarray, overlap: float) -> float:
    """How far a guest must move along a unit vector until no two spheres overlap by more, nm."""
    apart = guest.position[:, None] - host.position
    reach = guest.radius[:, None] + host.radius - overlap
    along = apart @ way
    squared = along**2 - (apart**2).sum(-1) + reach**2
    return float(np.max(np.sqrt(squared, where=squared > 0, out=np.zeros_like(squared)) - along,
                        where=squared > 0, initial=0.0))


def _direction(rng: np.random.Generator) -> np.ndarray:
    return _unit(rng.standard_normal(3))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def paint_mitochondria(
    grown: Mitochondria, begin: Sequence[int], shape: Sequence[int], *,
    voxel_size: Sequence[float],
) -> np.ndarray:
    """Return the ids of the voxels of a box, (z, y, x) uint64, 0 outside of mitochondria.

    A voxel belongs to the tube whose surface, made a little rough, it is deepest below. Where two
    overlap they share the overlap, and touch along a face.

    Parameters
    ----------
    begin, shape : (3,) ints
        First voxel of the box, which may be negative, and its size (z, y, x).
    voxel_size : (3,) floats
        nm (z, y, x).
    """
    begin, shape = np.asarray(begin, np.int64), tuple(int(n) for n in shape)
    size = np.asarray(voxel_size, float)
    best, ids = np.full(shape, np.inf, np.float32), np.zeros(shape, np.uint64)
    reach = (grown.radius + 4 * ROUGH_NM)[:, None]
    near = ((grown.position + reach > begin * size)
            & (grown.position - reach < (begin + shape) * size)).all(axis=1)
    _paint(best, ids, grown.position[near], grown.radius[near], grown.body[near], begin, size,
           4 * ROUGH_NM)
    rough = smooth_noise_in(
        begin, shape, seed=grown.seed, voxel_size=size, scale_nm=ROUGH_SCALE_NM
    )
    ids[best >= np.float32(ROUGH_NM) * rough] = 0
    return ids


@njit(cache=True, nogil=True)
def _paint(best, ids, position, radius, body, begin, voxel_size, beyond):
    """Note the nearest surface of every voxel, nm below 0 inside of it, and whose it is."""
    for p in range(len(radius)):
        reach = radius[p] + beyond
        low, high = np.empty(3, np.int64), np.empty(3, np.int64)
        for axis in range(3):
            first = np.floor((position[p, axis] - reach) / voxel_size[axis])
            last = np.ceil((position[p, axis] + reach) / voxel_size[axis])
            low[axis] = max(np.int64(first) - begin[axis], 0)
            high[axis] = min(np.int64(last) + 1 - begin[axis], best.shape[axis])
        for z in range(low[0], high[0]):
            dz = (begin[0] + z + 0.5) * voxel_size[0] - position[p, 0]
            for y in range(low[1], high[1]):
                dy = (begin[1] + y + 0.5) * voxel_size[1] - position[p, 1]
                for x in range(low[2], high[2]):
                    dx = (begin[2] + x + 0.5) * voxel_size[2] - position[p, 2]
                    squared = dz * dz + dy * dy + dx * dx
                    if squared < reach * reach:
                        outside = np.float32(np.sqrt(squared) - radius[p])
                        if outside < best[z, y, x]:  # of equal ones the first: ids ascend
                            best[z, y, x] = outside
                            ids[z, y, x] = np.uint64(body[p])
