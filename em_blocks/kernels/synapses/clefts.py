"""Partners that face one synaptic cleft: the cleft on the line between two sites, and its connectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np

_MOST_ROUNDS = 100


class Crossed(NamedTuple):
    """What n lines from a presynaptic to a postsynaptic site cross."""

    cleft: np.ndarray  # (n,) int64: the cleft with most voxels on the line; 0 if none
    score: np.ndarray  # (n,) float64: the largest value on the line


def clefts_on_lines(
    clefts: np.ndarray, values: np.ndarray, pre: np.ndarray, post: np.ndarray,
    *, corner: Sequence[int],
) -> Crossed:
    """The cleft between the sites of every row, and the largest value between them.

    A line has one voxel per step along its longest axis, both ends included. The cleft with most
    voxels on it is taken, of equally many the smallest id; background does not vote.

    Parameters
    ----------
    clefts : (z, y, x) integer array
        Ids of clefts in a box of a volume; 0 is none.
    values : (z, y, x) array
        What the network said there.
    pre, post : (n, 3) int array
        Voxels of the volume; both must lie in the box.
    corner : (3,) int
        First voxel of the box in the volume.

    Raises
    ------
    ValueError
        If a line leaves the box.
    """
    corner = np.asarray(corner, np.int64)
    ends = [np.asarray(end, np.int64).reshape(-1, 3) - corner for end in (pre, post)]
    if any(((end < 0) | (end >= clefts.shape)).any() for end in ends):
        raise ValueError(f"a line leaves the {clefts.shape} voxels from {tuple(corner)} on")
    return Crossed(*_follow(clefts, values, *ends))


@numba.njit(cache=True)
def _follow(clefts, values, pre, post):
    ids, scores = np.zeros(len(pre), np.int64), np.zeros(len(pre), np.float64)
    for n in range(len(pre)):
        step = post[n] - pre[n]
        steps = max(1, np.abs(step).max())
        here = np.zeros(steps + 1, np.int64)
        best = -np.inf
        for k in range(steps + 1):
            # Whole numbers: halves are rounded up, the same on every machine.
            z, y, x = pre[n] + (2 * k * step + steps) // (2 * steps)
            here[k] = clefts[z, y, x]
            best = max(best, float(values[z, y, x]))
        ids[n], scores[n] = _most_frequent(np.sort(here)), best
    return ids, scores


@numba.njit(cache=True)
def _most_frequent(ids):
    """The id that is in a sorted array most often, the smallest of equally frequent ones; not 0."""
    winner, most, begin = 0, 0, 0
    for k in range(1, len(ids) + 1):
        if k == len(ids) or ids[k] != ids[begin]:
            if ids[begin] != 0 and k - begin > most:
                winner, most = ids[begin], k - begin
            begin = k
    return winner


class Connectors(NamedTuple):
    """Where the partners of one cleft are drawn to meet."""

    rows: np.ndarray  # (k,) int: the rows whose presynaptic sites are connectors; one or two
    member: np.ndarray  # (n,) int: the connector of every row, 0 .. k - 1


def connectors(pre: np.ndarray, centroid: Sequence[float], *, split: bool = False) -> Connectors:
    """The presynaptic site that stands for all those of a cleft.

    Parameters
    ----------
    pre : (n, 3) float array
        Presynaptic sites of the rows of one cleft, nm (z, y, x); n >= 1. Of equally near ones, the
        first is taken.
    centroid : (3,) float
        Of the cleft, nm.
    split : bool
        The cleft is so large that it may be two that touch: the sites are divided by 2-means, and
        each half has the site nearest to its mean.
    """
    if not split or (pre == pre[0]).all():
        return Connectors(np.array([_nearest(pre, centroid)]), np.zeros(len(pre), np.int64))
    member = two_means(pre)
    rows = []
    for half in (0, 1):
        own = np.flatnonzero(member == half)
        rows.append(own[_nearest(pre[own], pre[own].mean(axis=0))])
    return Connectors(np.array(rows), member)


def two_means(points: np.ndarray) -> np.ndarray:
    """Divide points into two groups, each nearer to its own mean.

    It starts from the point farthest from the mean of all, and the one farthest from that, so the
    result is reproducible; the first point is in group 0.

    Parameters
    ----------
    points : (n, d) float array
        At least two different ones.

    Returns
    -------
    (n,) int64 array of 0 and 1

    References
    ----------
    Lloyd's algorithm, doi:10.1109/TIT.1982.1056489.
    """
    first = points[np.argmax(_squared(points, points.mean(axis=0)))]
    means = np.stack([first, points[np.argmax(_squared(points, first))]])
    member = np.full(len(points), -1)
    for _ in range(_MOST_ROUNDS):
        nearer = (_squared(points, means[1]) < _squared(points, means[0])).astype(np.int64)
        if np.array_equal(nearer, member):
            break
        member = nearer
        means = np.stack([points[member == half].mean(axis=0) for half in (0, 1)])
    return member ^ member[0]


def _nearest(points: np.ndarray, to: Sequence[float]) -> int:
    return int(np.argmin(_squared(points, np.asarray(to))))


def _squared(points: np.ndarray, to: np.ndarray) -> np.ndarray:
    return ((points - to) ** 2).sum(axis=1)
