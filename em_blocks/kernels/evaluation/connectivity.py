"""Which pairs of neurons meet at a synapse, by the rule of the Kasthuri laboratory's evaluation.

A pair is credited with a synapse if both neurons, dilated, share a voxel of it. The dilated masks
of all neurons are never made: a voxel lies in the dilated mask of every neuron that has a voxel
within reach. So only voxels of synapses are visited, and a block needs no more than its own
voxels and the reach around them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numba import njit

from em_blocks.geometry import Triple, triple
from em_blocks.kernels.evaluation.contingency import as_ids
from em_blocks.kernels.evaluation.counts import Counts, Sizes

WHOLE = 0
"""Both neurons of a row that tells how many voxels the synapse itself has."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_ONE = np.uint64(1)
_NONE = np.uint64(0)


# -- reach ----------------------------------------------------------------------------------


def reach_in_voxels(n: int) -> np.ndarray:
    """Shifts that one step to the 6 neighbours, then n - 1 to the 4 in the section, can make.

    Returns
    -------
    (k, 3) int64 array
        All (dz, dy, dx) with abs(dz) <= 1 and abs(dy) + abs(dx) <= n - abs(dz); z slowest. k is 7
        for n = 1 and 143 for n = 5.

    Raises
    ------
    ValueError
        If n < 1.
    """
    if n < 1:
        raise ValueError(f"a reach is at least 1 voxel, got {n}")
    around = range(-n, n + 1)
    return np.array([
        shift for shift in itertools.product((-1, 0, 1), around, around)
        if abs(shift[1]) + abs(shift[2]) <= n - abs(shift[0])
    ])


def reach_in_nm(reach_nm: float, voxel_size: tuple[float, float, float]) -> np.ndarray:
    """Shifts of at most `reach_nm` between the middles of two voxels, whatever their shape.

    Returns
    -------
    (k, 3) int64 array
        (dz, dy, dx), z slowest. Only (0, 0, 0) if no voxel has a neighbour so near.
    """
    furthest = steps_in_nm(reach_nm, voxel_size)
    shifts = np.indices([2 * n + 1 for n in furthest]).reshape(3, -1).T - furthest
    distances = np.linalg.norm(shifts * np.asarray(voxel_size, float), axis=1)
    return shifts[distances <= reach_nm]


def steps_in_nm(reach_nm: float, voxel_size: tuple[float, float, float]) -> Triple:
    """Voxels along each axis that `reach_nm` is long."""
    return triple(int(reach_nm // v) for v in voxel_size)


def context_of(shifts: np.ndarray) -> Triple:
    """Voxels (z, y, x) around a block that lie within reach of it."""
    return triple(np.abs(shifts).max(axis=0).tolist())


# -- tables ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contacts(Counts):
    """Voxels within reach of both neurons a < b: their contact zone."""

    a: np.ndarray
    b: np.ndarray


@dataclass(frozen=True)
class Credits(Counts):
    """Voxels of a synapse within reach of both neurons a < b.

    With a = b = `WHOLE`, all voxels of the synapse: synapses between no two neurons have only
    this row.
    """

    synapse: np.ndarray
    a: np.ndarray
    b: np.ndarray

    @property
    def pairs(self) -> Credits:
        """Rows of pairs only."""
        return self.rows(self.a != WHOLE)

    @property
    def sizes(self) -> Sizes:
        """Voxels of each synapse."""
        whole = self.rows(self.a == WHOLE)
        return Sizes(whole.voxels, whole.synapse)

    def part(self, number: int, of: int) -> Credits:
        """One of `of` disjoint parts; all rows of a synapse are in the same one."""
        if of == 1:
            return self
        return self.rows((self.synapse * _GOLDEN >> _HALF) % np.uint64(of) == number)


# -- counting -------------------------------------------------------------------------------


def credit_synapses(
    synapses: np.ndarray, neurons: np.ndarray, shifts: np.ndarray, *, corner: Triple = (0, 0, 0)
) -> Credits:
    """Count the voxels that every synapse shares with the contact zone of every two neurons.

    Parameters
    ----------
    synapses : (z, y, x) int array
        Ids of synapses; 0: none.
    neurons : (z, y, x) int array
        Ids of neurons around the same voxels, 0: none. What lies beyond it has no neurons, so it
        must hold all of the volume that is within reach.
    shifts : (k, 3) int array
        From `reach_in_voxels` or `reach_in_nm`.
    corner : (3,) int
        Voxel of `neurons` that is the first one of `synapses`.

    References
    ----------
    Equal to dilating every neuron (github.com/boergens/kasthurilab_connectomics) and intersecting
    the masks of every pair with those of the synapses.
    """
    _check_covered(synapses.shape, neurons.shape, corner)
    voxels = np.nonzero(synapses != 0)  # of bool: many times as fast
    places = np.stack(voxels, axis=1) + np.array(corner)
    found = _credits(
        as_ids(synapses[voxels]), places, np.ascontiguousarray(as_ids(neurons)),
        np.ascontiguousarray(shifts),
    )
    return _table(Credits, *found)


def contact_zones(
    neurons: np.ndarray, shifts: np.ndarray, *, corner: Triple, shape: Triple
) -> Contacts:
    """Count the voxels of the contact zone of every two neurons in a box.

    Parameters
    ----------
    neurons, shifts, corner
        As for `credit_synapses`.
    shape : (3,) int
        Voxels (z, y, x) from `corner` on that are counted.
    """
    _check_covered(shape, neurons.shape, corner)
    keys, voxels = _zones(
        np.ascontiguousarray(as_ids(neurons)), np.array(corner, np.int64),
        np.array(shape, np.int64), np.ascontiguousarray(shifts),
    )
    return _table(Contacts, keys[:, :2], voxels)


def count_sizes(ids: np.ndarray) -> Sizes:
    """Count the voxels of every id but 0."""
    keys, voxels = _sizes(np.ascontiguousarray(as_ids(ids)).reshape(-1))
    return _table(Sizes, keys[:, :1], voxels)


def _check_covered(inner: Triple, outer: Triple, corner: Triple) -> None:
    if any(c < 0 or c + i > o for c, i, o in zip(corner, inner, outer, strict=True)):
        raise ValueError(
            f"neurons of shape {outer} do not cover synapses of shape {inner} from voxel {corner} on"
        )


def _table(kind: type[Counts], keys: np.ndarray, voxels: np.ndarray):
    """A hash table as a sorted table."""
    filled = np.flatnonzero(voxels)
    return kind.of_rows(voxels[filled], *np.ascontiguousarray(keys[filled].T))


@njit(cache=True, inline="always")
def _fold(mixed, value):
    """Hash of what was hashed before and one more id. Both halves of it matter."""
    mixed = (mixed ^ value) * _GOLDEN
    return mixed ^ (mixed >> _HALF)


@njit(cache=True)
def _place(keys, voxels, first, second, third):
    """Find the row of three ids, or the free one (0 voxels) where they belong."""
    mask = np.uint64(len(voxels) - 1)
    here = _fold(_fold(_fold(_NONE, first), second), third) & mask
    while voxels[here] > 0 and (
        keys[here, 0] != first or keys[here, 1] != second or keys[here, 2] != third
    ):
        here = (here + _ONE) & mask
    return here


@njit(cache=True)
def _add(keys, voxels, first, second, third, n):
    """Add n voxels to a row; whether it is new (1 or 0)."""
    here = _place(keys, voxels, first, second, third)
    new = voxels[here] == 0
    if new:
        keys[here, 0], keys[here, 1], keys[here, 2] = first, second, third
    voxels[here] += n
    return 1 if new else 0


@njit(cache=True)
def _doubled(keys, voxels):
    """The same rows in a table of twice the length."""
    new_keys = np.zeros((2 * len(voxels), 3), np.uint64)
    new_voxels = np.zeros(2 * len(voxels), np.int64)
    for i in range(len(voxels)):
        if voxels[i] > 0:
            _add(new_keys, new_voxels, keys[i, 0], keys[i, 1], keys[i, 2], voxels[i])
    return new_keys, new_voxels


@njit(cache=True)
def _near(neurons, z, y, x, shifts, near):
    """Write the distinct neurons within reach of a voxel into `near`; their number."""
    n, last = 0, _NONE
    for s in range(len(shifts)):
        i, j, k = z + shifts[s, 0], y + shifts[s, 1], x + shifts[s, 2]
        if not (0 <= i < neurons.shape[0] and 0 <= j < neurons.shape[1]
                and 0 <= k < neurons.shape[2]):
            continue
        neuron = neurons[i, j, k]
        if neuron == last:  # most often
            continue
        last, known = neuron, neuron == _NONE
        for m in range(n):
            known = known or near[m] == neuron
        if not known:
            near[n] = neuron
            n += 1
    return n


@njit(cache=True)
def _credits(synapses, places, neurons, shifts):
    keys, voxels, filled = np.zeros((1024, 3), np.uint64), np.zeros(1024, np.int64), 0
    near = np.empty(len(shifts), np.uint64)
    for v in range(len(synapses)):
        n = _near(neurons, places[v, 0], places[v, 1], places[v, 2], shifts, near)
        while 4 * (filled + 1 + n * (n - 1) // 2) > 3 * len(voxels):
            keys, voxels = _doubled(keys, voxels)
        filled += _add(keys, voxels, synapses[v], _NONE, _NONE, 1)
        for i in range(n):
            for j in range(i):
                a, b = min(near[i], near[j]), max(near[i], near[j])
                filled += _add(keys, voxels, synapses[v], a, b, 1)
    return keys, voxels


@njit(cache=True)
def _zones(neurons, corner, shape, shifts):
    """As `_credits` for all voxels of a box, of which only few are near two neurons."""
    keys, voxels, filled = np.zeros((1024, 3), np.uint64), np.zeros(1024, np.int64), 0
    near = np.empty(len(shifts), np.uint64)
    for z in range(corner[0], corner[0] + shape[0]):
        for y in range(corner[1], corner[1] + shape[1]):
            for x in range(corner[2], corner[2] + shape[2]):
                n = _near(neurons, z, y, x, shifts, near)
                while 4 * (filled + n * (n - 1) // 2) > 3 * len(voxels):
                    keys, voxels = _doubled(keys, voxels)
                for i in range(n):
                    for j in range(i):
                        a, b = min(near[i], near[j]), max(near[i], near[j])
                        filled += _add(keys, voxels, a, b, _NONE, 1)
    return keys, voxels


@njit(cache=True)
def _sizes(ids):
    """Runs of one id are counted at once: neurons are far thicker than a voxel."""
    keys, voxels, filled = np.zeros((1024, 3), np.uint64), np.zeros(1024, np.int64), 0
    start = 0
    for i in range(1, len(ids) + 1):
        if i < len(ids) and ids[i] == ids[start]:
            continue
        if ids[start] != _NONE:
            if 4 * (filled + 1) > 3 * len(voxels):
                keys, voxels = _doubled(keys, voxels)
            filled += _add(keys, voxels, ids[start], _NONE, _NONE, i - start)
        start = i
    return keys, voxels
