"""Flooding from seeds, whose result depends on no order and on no box in which it is computed.

The way of a flood to a voxel costs (level, steps): the highest level on the way, and the steps since
that was first reached. Every voxel belongs to the seed with the cheapest way to it; of several, to that
of the smallest label among the neighbours that the cheapest ways come from. These costs are those of a
flood by levels, on plateaus by distance. Every further step costs more, and a cheaper way stays the
cheaper one however both go on, so that each voxel has one least cost, and one label.

In a box that cuts components, floods may also come from beyond it. Nothing comes from there at a lower
cost than (the level of the voxel at the side, 1). What a flood at that cost does not reach, and what
does not follow from voxels that it reaches, is as in the whole volume.

References
----------
Flooding by levels: Meyer 1991; Vincent and Soille 1991, doi:10.1109/34.87344. Path costs of such floods:
Falcao, Stolfi and Lotufo 2004, doi:10.1109/TPAMI.2004.1261076.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from em_blocks.kernels.components.sparse_components import voxels_above
from em_blocks.kernels.components.sparse_depth import neighbors
from em_blocks.kernels.instances.landscape import SEED

UNDECIDED = np.iinfo(np.uint32).max
"""Label of voxels that are to be flooded; those of seeds are below."""

Sides = Sequence[tuple[bool, bool]]
"""For each axis (z, y, x), whether components go on before the first and behind the last voxel."""

CLOSED: Sides = ((False, False),) * 3

_BEYOND = 0  # less than any label, so that it stays wherever it takes part


def flood(landscape: np.ndarray, labels: np.ndarray, *, open_sides: Sides = CLOSED) -> None:
    """Give voxels to the seeds that reach them first.

    Parameters
    ----------
    landscape : (z, y, x) uint8 array
        As from `em_blocks.kernels.instances.landscape`: its highest values are flooded first.
    labels : (z, y, x) uint32 array
        0 where nothing is flooded, `UNDECIDED` where it is, labels of seeds elsewhere. `UNDECIDED` gives
        way to labels, but for voxels whose label this box does not tell, and those that no seed is
        connected with by faces.
    open_sides : 3 pairs of bool
        Sides of the box that are not the border of the volume.
    """
    voxels = voxels_above(labels, np.uint32(UNDECIDED - 1))
    if len(voxels):
        labels.ravel()[voxels] = _flooded(
            voxels, np.ascontiguousarray(landscape), labels, np.array(open_sides, np.bool_)
        )


@njit(cache=True, nogil=True)
def _flooded(voxels, landscape, labels, open_sides):
    """Label of every voxel of the list."""
    _, ny, nx = landscape.shape
    around = neighbors(voxels, ny, nx)
    level = _levels(voxels, landscape)
    label = _first_labels(voxels, labels, open_sides)
    turn = np.zeros(len(voxels), np.int32)  # in which step a voxel was reached; 0: not yet
    first_of = np.full(SEED + 1, -1, np.int32)  # of each level, a list of voxels that wait
    next_of = np.full(len(voxels), -2, np.int32)  # -2: does not wait
    for i in range(len(voxels)):
        if label[i] != UNDECIDED:
            _wait(i, level[i], first_of, next_of)
    front, n, now = np.empty(len(voxels), np.int32), 0, 0
    for height in range(1, SEED):
        n, i = 0, first_of[height]
        now += 1
        first = now
        while i >= 0:
            if turn[i] == 0:
                turn[i] = now
                front[n] = i
                n += 1
            i = next_of[i]
        _label(front, 0, n, around, turn, label, 1, first)
        begin, end = 0, n
        while begin < end:
            now += 1
            for k in range(begin, end):
                for j in around[front[k]]:
                    if j < 0 or turn[j] > 0:
                        continue
                    if level[j] > height:
                        _wait(j, level[j], first_of, next_of)
                    else:
                        turn[j] = now
                        front[n] = j
                        n += 1
            begin, end = end, n
            _label(front, begin, end, around, turn, label, now - 1, now)
    for i in range(len(voxels)):
        if label[i] == _BEYOND:
            label[i] = UNDECIDED
    return label


@njit(cache=True, nogil=True)
def _levels(voxels, landscape):
    """Level of every voxel: 1, 2, ... for landscapes of 254, 253, ...; seeds that count for none, 1."""
    flat = landscape.ravel()
    found = np.empty(len(voxels), np.uint8)
    for i in range(len(voxels)):
        found[i] = max(1, SEED - max(1, flat[voxels[i]]))
    return found


@njit(cache=True, nogil=True)
def _first_labels(voxels, labels, open_sides):
    """Smallest label of the seeds next to each voxel; `_BEYOND` at open sides; else `UNDECIDED`."""
    nz, ny, nx = labels.shape
    size, step = (nz, ny, nx), (ny * nx, nx, 1)
    flat = labels.ravel()
    found = np.full(len(voxels), UNDECIDED, np.uint32)
    for i in range(len(voxels)):
        row = voxels[i] // nx
        point = (row // ny, row % ny, voxels[i] - row * nx)
        for axis in range(3):
            for side in range(2):
                if point[axis] == (size[axis] - 1) * side:
                    if open_sides[axis, side]:
                        found[i] = _BEYOND
                    continue
                there = flat[voxels[i] + step[axis] * (2 * side - 1)]
                if there > 0:
                    found[i] = min(found[i], there)
    return found


@njit(cache=True, inline="always")
def _wait(i, level, first_of, next_of):
    """Put a voxel into the list of its level, once."""
    if next_of[i] == -2:
        next_of[i] = first_of[level]
        first_of[level] = i


@njit(cache=True, inline="always")
def _label(front, begin, end, around, turn, label, earliest, end_of_turns):
    """Give voxels the smallest label of those neighbours that were reached in certain steps."""
    for k in range(begin, end):
        i = front[k]
        for j in around[i]:
            if j >= 0 and earliest <= turn[j] < end_of_turns:
                label[i] = min(label[i], label[j])
