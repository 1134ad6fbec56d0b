"""Filters of synaptic partners: an ordered list, of which every step says what it removed.

A filter is a few numbers (a frozen dataclass) and can be called: it splits a table into what
stays and the ids of what goes. The same list on the same table gives the same result, whatever
the order of rows, apart from the order of the rows that stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from em_blocks.kernels.synapses.table import BACKGROUND, TOO_FAR, UNMAPPED, Synapses

Objects = Literal["supervoxel", "segment", "skeleton"]


class Filtered(NamedTuple):
    """What a filter made of a table."""

    kept: Synapses
    removed: np.ndarray  # ids, sorted


class Step(NamedTuple):
    """One filter of a list, and what it removed."""

    filter: Filter
    before: int  # rows it was given
    removed: np.ndarray  # ids, sorted


def apply_filters(synapses: Synapses, filters: Iterable[Filter]) -> tuple[Synapses, list[Step]]:
    """Apply filters one after the other.

    Returns
    -------
    kept : Synapses
    steps : list of Step
        One per filter, in their order.
    """
    steps = []
    for filter in filters:
        before = len(synapses)
        synapses, removed = filter(synapses)
        steps.append(Step(filter, before, removed))
    return synapses, steps


def object_ids(synapses: Synapses, objects: Objects) -> np.ndarray:
    """(n, 2) int64: the objects at the presynaptic and postsynaptic sites."""
    sides = [getattr(synapses, f"{side}_{objects}") for side in ("pre", "post")]
    return np.stack(sides, axis=1)


@dataclass(frozen=True)
class Score:
    """Keep links with at least this score; those without a score go."""

    threshold: float

    def __call__(self, synapses: Synapses) -> Filtered:
        return _without(synapses, ~(synapses.score >= self.threshold))

    def __str__(self) -> str:
        return f"score < {self.threshold:g}"


@dataclass(frozen=True)
class Listed:
    """Remove links with a listed object at one of their sites; by default on background."""

    ids: tuple[int, ...] = (BACKGROUND,)
    objects: Objects = "segment"

    def __call__(self, synapses: Synapses) -> Filtered:
        listed = np.isin(object_ids(synapses, self.objects), self.ids)
        return _without(synapses, np.any(listed, axis=1))

    def __str__(self) -> str:
        if self.ids == (BACKGROUND,):
            return f"no {self.objects} (background)"
        if self.ids == (UNMAPPED,):
            return f"unmapped {self.objects}"
        named = ", ".join(map(str, self.ids[:3])) + (", ..." if len(self.ids) > 3 else "")
        return f"{self.objects} is {named}"


@dataclass(frozen=True)
class SelfLinks:
    """Remove links of an object with itself; two unmapped sites count as the same object."""

    objects: Objects = "segment"

    def __call__(self, synapses: Synapses) -> Filtered:
        pre, post = object_ids(synapses, self.objects).T
        return _without(synapses, pre == post)

    def __str__(self) -> str:
        return f"same {self.objects}"


@dataclass(frozen=True)
class Length:
    """Keep links whose sites are `min_nm` to `max_nm` apart, both included."""

    min_nm: float = 0.0
    max_nm: float = np.inf

    def __call__(self, synapses: Synapses) -> Filtered:
        length = synapses.distance
        return _without(synapses, (length < self.min_nm) | (length > self.max_nm))

    def __str__(self) -> str:
        return f"length not in {self.min_nm:g} to {self.max_nm:g} nm"


@dataclass(frozen=True)
class Duplicates:
    """Of links that join the same two objects at one place, keep one.

    Links of a pair of objects are clustered by their sites: one is in the same cluster as every
    other at most `distance_nm` away, and so on from link to link (single linkage). Links with an
    unmapped site are never duplicates.

    Attributes
    ----------
    distance_nm : float or None
        None: all links of a pair of objects are one cluster.
    site : "post" or "pre"
        The sites that are compared.
    keep : "best" or "mean"
        The link with the highest score (the least id of equals; without a score, the lowest); or
        the one with the least id, moved to the mean positions of the cluster. A mean position may
        lie in another object: nothing is looked up again.
    ignore : ids
        Objects whose links are all kept: they are no neuron.

    Notes
    -----
    Synful (doi:10.1038/s41592-021-01183-7) does not join links at exactly the same position,
    because it takes a distance of 0 for "not near". Here they are the plainest duplicates.
    """

    distance_nm: float | None
    objects: Objects = "segment"
    site: Literal["post", "pre"] = "post"
    keep: Literal["best", "mean"] = "best"
    ignore: tuple[int, ...] = (TOO_FAR,)

    def __call__(self, synapses: Synapses) -> Filtered:
        cluster = self._clusters(synapses)
        score = np.where(np.isnan(synapses.score), -np.inf, synapses.score)
        worth = np.zeros(len(synapses)) if self.keep == "mean" else -score
        order = np.lexsort((synapses.id, worth, cluster))
        first = np.diff(cluster[order], prepend=-1) > 0
        if self.keep == "mean":
            synapses = _at_means(synapses, cluster, order[first])
        again = np.ones(len(synapses), bool)
        again[order[first]] = False
        return _without(synapses, again)

    def __str__(self) -> str:
        near = "" if self.distance_nm is None else f" within {self.distance_nm:g} nm"
        return f"duplicate{near}, same {self.objects}s"

    def _clusters(self, synapses: Synapses) -> np.ndarray:
        """(n,): a number for every cluster, from 0 on without gaps."""
        ids = object_ids(synapses, self.objects)
        pairs = np.unique(ids, axis=0, return_inverse=True)[1].reshape(-1)
        single = (ids == UNMAPPED).any(axis=1) | np.isin(ids, self.ignore).any(axis=1)
        pairs[single] = len(synapses) + np.arange(single.sum())
        if self.distance_nm is None:
            return np.unique(pairs, return_inverse=True)[1]
        rows = np.flatnonzero(~single & (_times(pairs) > 1))
        near = _near(getattr(synapses, self.site)[rows], pairs[rows], self.distance_nm)
        links = coo_array(
            (np.ones(len(near), bool), tuple(rows[near].T)), shape=(len(synapses),) * 2
        )
        return connected_components(links, directed=False)[1]


Filter = Score | Listed | SelfLinks | Length | Duplicates


def _without(synapses: Synapses, gone: np.ndarray) -> Filtered:
    if not gone.any():
        return Filtered(synapses, np.zeros(0, np.int64))
    return Filtered(synapses.select(~gone), np.sort(synapses.id[gone]))


def _times(values: np.ndarray) -> np.ndarray:
    """Count how often the value of every row occurs."""
    _, numbers, counts = np.unique(values, return_inverse=True, return_counts=True)
    return counts[numbers]


def _near(positions: np.ndarray, groups: np.ndarray, distance_nm: float) -> np.ndarray:
    """(k, 2) rows of one group that are at most `distance_nm` apart; memory: those pairs."""
    radius = distance_nm * (1 + 1e-9)  # a tree compares squares; ends are decided exactly below
    groups = np.unique(groups, return_inverse=True)[1]
    # As a fourth coordinate, groups farther apart than the radius never meet.
    tree = cKDTree(np.column_stack([groups * (2 * radius + 1), positions]))
    pairs = tree.query_pairs(radius, output_type="ndarray")
    apart = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    return pairs[apart <= distance_nm]


def _at_means(synapses: Synapses, cluster: np.ndarray, rows: np.ndarray) -> Synapses:
    """Move the link in `rows` of every cluster to the mean positions of that cluster."""
    moved = {}
    for side in ("pre", "post"):
        positions = getattr(synapses, side).copy()
        counts = np.bincount(cluster)
        means = np.stack([np.bincount(cluster, axis) for axis in positions.T], axis=1)
        # The positions of single links stay as they are, to the last bit.
        several = rows[counts[cluster[rows]] > 1]
        positions[several] = (means / counts[:, None])[cluster[several]]
        moved[side] = positions
    return synapses.replace(**moved)
