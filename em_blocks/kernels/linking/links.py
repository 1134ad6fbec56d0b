"""Which labels of two neighbouring pieces are one object: by their overlap in the face between them."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from em_blocks.kernels.linking.groups import grouped, sums

Criterion = Literal["iou", "dice", "min", "sum"]

BACKGROUND = -1
"""In place of a node, where a voxel of a face has no label."""


class FaceVoxels(NamedTuple):
    """Counts of the voxels of faces: every voxel beside its neighbour on the other side, once.

    Attributes
    ----------
    face : (n,) int array
        Number of the face.
    a, b : (n,) int arrays
        Nodes (labels of a piece) on its lower and its higher side; `BACKGROUND` where there is none.
    voxels : (n,) int array
        Rows of one face and pair may be several; they add up.
    """

    face: np.ndarray
    a: np.ndarray
    b: np.ndarray
    voxels: np.ndarray


class Overlaps(NamedTuple):
    """Pairs of labels that meet in a face, sorted by (face, a, b), each once.

    Attributes
    ----------
    face, a, b : (n,) int arrays
        Face and nodes; never `BACKGROUND`.
    shared : (n,) int array
        Voxels (I) of the face with `a` on its lower and `b` on its higher side.
    area_a, area_b : (n,) int arrays
        Voxels (A, B) of each label in the face, on its own side.
    """

    face: np.ndarray
    a: np.ndarray
    b: np.ndarray
    shared: np.ndarray
    area_a: np.ndarray
    area_b: np.ndarray


def overlaps(found: FaceVoxels) -> Overlaps:
    """Return all pairs of labels that meet, with their areas in the face."""
    keys, row = grouped(found.face, found.a, found.b)
    face, a, b = keys
    shared = sums(row, found.voxels, len(face))
    area_a = _area(face, a, shared)
    area_b = _area(face, b, shared)
    both = (a != BACKGROUND) & (b != BACKGROUND)
    return Overlaps(*(column[both] for column in (face, a, b, shared, area_a, area_b)))


def scores(pairs: Overlaps, criterion: Criterion) -> np.ndarray:
    """Return how much the two labels of every pair agree, 0..1 (0..0.5 for "sum").

    Parameters
    ----------
    criterion : {"iou", "dice", "min", "sum"}
        I / (A + B - I), 2 I / (A + B), I / min(A, B), or I / (A + B).
    """
    shared, both = pairs.shared, pairs.area_a + pairs.area_b
    if criterion == "iou":
        return shared / (both - shared)
    if criterion == "dice":
        return 2 * shared / both
    if criterion == "min":
        return shared / np.minimum(pairs.area_a, pairs.area_b)
    return shared / both


def linked(
    pairs: Overlaps, score: np.ndarray, *, threshold: float, mutual_best: bool = False
) -> np.ndarray:
    """Return which pairs are one object.

    Parameters
    ----------
    score : (n,) float array
        As of `scores`.
    threshold : float
        A pair is linked from this score on.
    mutual_best : bool
        Link a pair only if each of the two is the best partner of the other in that face: the one of the
        highest score, then of more shared voxels, then of the lower node. No label has two links in a
        face then.

    Returns
    -------
    (n,) bool array
    """
    accepted = score >= threshold
    if mutual_best:
        accepted &= _best(pairs.face, pairs.a, pairs.b, pairs, score)
        accepted &= _best(pairs.face, pairs.b, pairs.a, pairs, score)
    return accepted


def united(n_nodes: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the object of every node, 1, 2, ... in the order of first nodes, by union of links.

    Parameters
    ----------
    a, b : (n,) int arrays
        Nodes that are one object, pair by pair.

    Returns
    -------
    (n_nodes,) int64 array
        The order of the links does not matter.
    """
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(n_nodes, n_nodes))
    n, member = connected_components(graph, directed=False)
    first = np.full(n, n_nodes, np.int64)
    np.minimum.at(first, member, np.arange(n_nodes))
    number = np.empty(n, np.int64)
    number[np.argsort(first)] = np.arange(1, n + 1)
    return number[member]


def _best(
    face: np.ndarray, label: np.ndarray, other: np.ndarray, pairs: Overlaps, score: np.ndarray
) -> np.ndarray:
    """Return which pairs are those of a label with its best partner."""
    order = np.lexsort((other, -pairs.shared, -score, label, face))
    is_first = np.ones(len(order), bool)
    is_first[1:] = (np.diff(face[order]) != 0) | (np.diff(label[order]) != 0)
    best = np.zeros(len(order), bool)
    best[order[is_first]] = True
    return best


def _area(face: np.ndarray, label: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Return, row by row, all voxels of a label in its face."""
    keys, row = grouped(face, label)
    return sums(row, voxels, len(keys[0]))[row]
