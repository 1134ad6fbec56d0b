"""Who connects to whom, and by how many synapses: a directed graph made from tables of partners."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
import scipy.sparse

from em_blocks.kernels.synapses.table import Synapses

Objects = Literal["segment", "skeleton", "supervoxel"]

# Rows that wait to be added up are as many as there are edges, or at least these: adding up sorts
# all rows, so doing it for every small table would sort the large sum again and again.
_WAITING_ROWS = 1 << 20


@dataclass(frozen=True)
class Connectome:
    """Connections between neurons; sorted by (pre, post), each pair once.

    Attributes
    ----------
    pre, post : (n,) int64 array
        Presynaptic and postsynaptic object of every connection, ids from 1. Both are the same
        object where a neuron connects to itself.
    weight : (n,) int64 array
        Number of synapses; never 0.
    score : (n,) float64 array
        Sum of their scores; those that are unknown (nan) count as 0.
    position : (n, 3) float64 array
        Mean of the points halfway between the two sites of every synapse, nm (z, y, x).
    """

    pre: np.ndarray
    post: np.ndarray
    weight: np.ndarray
    score: np.ndarray
    position: np.ndarray

    def __len__(self) -> int:
        return len(self.weight)

    @property
    def nodes(self) -> np.ndarray:
        """Ids of all objects that take part, sorted."""
        return np.union1d(self.pre, self.post)

    def at_least(self, weight: int) -> Connectome:
        """Return the connections of at least `weight` synapses."""
        return self.select(self.weight >= weight)

    def select(self, rows: np.ndarray) -> Connectome:
        """The connections of a mask or of indices that rise."""
        return Connectome(*(getattr(self, column.name)[rows] for column in fields(self)))

    def matrix(self) -> tuple[scipy.sparse.csr_array, np.ndarray]:
        """Weights as a sparse matrix, and the id of every row and column.

        Returns
        -------
        matrix : (k, k) int64 sparse array
            ``matrix[i, j]`` synapses from object ``ids[i]`` to object ``ids[j]``, in the order of
            the connections.
        ids : (k,) int64 array
        """
        ids = self.nodes
        places = np.searchsorted(ids, self.pre), np.searchsorted(ids, self.post)
        return scipy.sparse.csr_array((self.weight, places), shape=(len(ids),) * 2), ids


NONE = Connectome(
    np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0),
    np.zeros((0, 3)),
)


@dataclass
class ConnectomeCounter:
    """Adds up tables of partners; memory is that of the connections, however many tables come.

    Attributes
    ----------
    objects : {"segment", "skeleton", "supervoxel"}
        What the nodes are.
    n_synapses, n_left_out : int
        Synapses that were added, and those that were not because one of their sites is at no
        object: on background, unmapped, or too far from a skeleton.
    """

    objects: Objects = "segment"
    n_synapses: int = 0
    n_left_out: int = 0
    _sum: Connectome = NONE
    _waiting: list[Connectome] = field(default_factory=list)

    def add(self, synapses: Synapses) -> None:
        """Count the synapses of one table."""
        pre = getattr(synapses, f"pre_{self.objects}")
        post = getattr(synapses, f"post_{self.objects}")
        inside = (pre > 0) & (post > 0)
        n = int(inside.sum())
        self.n_synapses += n
        self.n_left_out += len(synapses) - n
        self._waiting.append(_summed(
            pre[inside], post[inside], np.ones(n, np.int64), np.nan_to_num(synapses.score[inside]),
            (synapses.pre[inside] + synapses.post[inside]) / 2,
        ))
        if sum(map(len, self._waiting)) > max(_WAITING_ROWS, len(self._sum)):
            self._add_up()

    def result(self) -> Connectome:
        """The connections of all synapses so far."""
        self._add_up()
        return self._sum

    def _add_up(self) -> None:
        tables = [self._sum, *self._waiting]
        columns = ([getattr(table, column.name) for table in tables] for column in fields(Connectome))
        self._sum, self._waiting = _summed(*map(np.concatenate, columns)), []


def connectome(tables: Iterable[Synapses], *, objects: Objects = "segment") -> Connectome:
    """The connections of all synapses of `tables`; see `ConnectomeCounter`."""
    counter = ConnectomeCounter(objects)
    for table in tables:
        counter.add(table)
    return counter.result()


def _summed(
    pre: np.ndarray, post: np.ndarray, weight: np.ndarray, score: np.ndarray, position: np.ndarray
) -> Connectome:
    """One row per pair, of rows with a mean position each."""
    if not len(pre):
        return NONE
    order = np.lexsort((post, pre))
    pre, post, weight, score, position = (
        values[order] for values in (pre, post, weight, score, position)
    )
    changes = (pre[1:] != pre[:-1]) | (post[1:] != post[:-1])
    first = np.append(0, np.flatnonzero(changes) + 1)
    total = np.add.reduceat(weight, first)
    moments = np.add.reduceat(position * weight[:, None], first)
    return Connectome(
        pre[first], post[first], total, np.add.reduceat(score, first), moments / total[:, None]
    )
