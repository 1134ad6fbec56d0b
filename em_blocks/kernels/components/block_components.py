"""Connected parts of ids, found block by block.

Two voxels belong to one part if a path of voxels of the same id joins them, each a neighbour of the next
by a face, an edge or a corner (26 neighbours), or faces only (6). A block knows its own parts. Which of
them go on in the next blocks is told without knowing the parts there: the voxels of a face, edge or
corner of the next block that are connected *in that face* are one part of it, whatever else they belong
to. Both blocks find these patches alike and name each by its first voxel.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from em_blocks.geometry import Triple, triple
from em_blocks.kernels.components.runs import connect_runs, find_runs, paint_runs

UPPER = [triple(d) for d in itertools.product((-1, 0, 1), repeat=3) if d > (0, 0, 0)]
"""Directions (z, y, x) to the 13 neighbours of a block that come after it; the others are their
opposites, so that each pair of blocks is met once."""

_BY_FACES = [d for d in UPPER if sum(map(abs, d)) == 1]
_UNMOVED = [((slice(None),) * 3, (slice(None),) * 3)]

Connectivity = Literal[6, 26]
"""Neighbours of a voxel: by faces, or by faces, edges and corners."""


class Parts(NamedTuple):
    """The connected parts in one block.

    Attributes
    ----------
    numbers : (z, y, x) uint16 or uint32 array
        Number of the part at each voxel, from 1 in the order of their first voxels; 0: background.
    ids : (n,) array
        Id of each part; part 1 stands first.
    sizes : (n,) int64 array
        Voxels of each part.
    first : (n,) int64 array
        Index of the first voxel of each part in the flat block.
    """

    numbers: np.ndarray
    ids: np.ndarray
    sizes: np.ndarray
    first: np.ndarray


def find_parts(labels: np.ndarray, connectivity: Connectivity = 26) -> Parts:
    """The parts of all ids but 0 in a block.

    Parameters
    ----------
    labels : (z, y, x) integer array
    connectivity : 6 or 26
    """
    labels = np.ascontiguousarray(labels)
    runs = find_runs(labels)
    found = connect_runs(runs, triple(labels.shape), by_corners=connectivity == 26)
    kind = np.uint16 if len(found.sizes) <= np.iinfo(np.uint16).max else np.uint32
    numbers = np.zeros(labels.shape, kind)
    paint_runs(numbers.ravel(), runs.first, runs.lengths, found.numbers.astype(kind))
    return Parts(numbers, labels.ravel()[found.first], found.sizes, found.first)


class Borders(NamedTuple):
    """How the parts of a block meet the blocks around it.

    Attributes
    ----------
    faces : (n, 2) int64 array
        Patches of the block's own border: number of the part, index of the patch's first voxel.
    links : (n, 2) int64 array
        Patches of the next blocks that touch a part: number of the part, index of the first voxel.
    """

    faces: np.ndarray
    links: np.ndarray


def find_borders(
    grown: np.ndarray, numbers: np.ndarray, index: Sequence[np.ndarray],
    connectivity: Connectivity = 26,
) -> Borders:
    """Patches on the border of a block, and the patches of the next blocks that they touch.

    Parameters
    ----------
    grown : (z + 2, y + 2, x + 2) integer array
        Ids of the block and one voxel around it; 0 beyond the volume.
    numbers : (z, y, x) integer array
        The parts of the block.
    index : 3 int64 arrays (z + 2,), (y + 2,), (x + 2,)
        What each axis adds to the index of a voxel in the whole volume.
    connectivity : 6 or 26
        As in `find_parts`.
    """
    faces, links = [], []
    for direction in UPPER if connectivity == 26 else _BY_FACES:
        below, beyond = _side(_opposite(direction), inner=True), _side(direction, inner=False)
        patches, first = _patches(grown, below, index, connectivity)
        faces.append(_pairs(numbers[_inside(below)], patches, first))
        patches, first = _patches(grown, beyond, index, connectivity)
        here = _side(direction, inner=True)
        for a, b in _shifts(direction) if connectivity == 26 else _UNMOVED:
            same = grown[here][a] == grown[beyond][b]
            links.append(_pairs(numbers[_inside(here)][a] * same, patches[b], first))
    return Borders(*(np.unique(np.concatenate(rows), axis=0) for rows in (faces, links)))


def _opposite(direction: Triple) -> Triple:
    return triple(-d for d in direction)


def _side(direction: Triple, *, inner: bool) -> tuple[slice, ...]:
    """The voxels of a grown block on its border in `direction`, the own or the next block's."""
    chosen = {
        (0, True): slice(1, -1), (0, False): slice(1, -1), (-1, True): slice(1, 2),
        (-1, False): slice(0, 1), (1, True): slice(-2, -1), (1, False): slice(-1, None),
    }
    return tuple(chosen[d, inner] for d in direction)


def _inside(side: tuple[slice, ...]) -> tuple[slice, ...]:
    """The same voxels of a border of its own in the block, which is not grown."""
    ungrown = {(1, -1): slice(None), (1, 2): slice(0, 1), (-2, -1): slice(-1, None)}
    return tuple(ungrown[s.start, s.stop] for s in side)


def _shifts(direction: Triple) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Pairs of slices that lay each voxel of one border over its neighbours in the other."""
    both = slice(None), slice(None)
    moved = [both, (slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))]
    choices = itertools.product(*(moved if d == 0 else [both] for d in direction))
    return [tuple(zip(*choice, strict=True)) for choice in choices]


def _patches(
    grown: np.ndarray, side: tuple[slice, ...], index: Sequence[np.ndarray], connectivity: Connectivity
) -> tuple[np.ndarray, np.ndarray]:
    """Patches of one border, and the index in the volume of the first voxel of each (at 1, 2, ...)."""
    parts = find_parts(grown[side], connectivity)
    voxels = np.unravel_index(parts.first, parts.numbers.shape)
    places = sum(axis[s][v] for axis, s, v in zip(index, side, voxels, strict=True))
    return parts.numbers, np.concatenate([[-1], places]).astype(np.int64)


def _pairs(numbers: np.ndarray, patches: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Unique (part, first voxel of the patch) where both are at the same place."""
    met = (numbers > 0) & (patches > 0)
    codes = np.unique(numbers[met] * np.int64(len(first)) + patches[met])
    return np.stack([codes // len(first), first[codes % len(first)]], axis=1)
