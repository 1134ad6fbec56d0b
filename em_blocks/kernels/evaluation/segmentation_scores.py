"""Scores of a segmentation against truth, from the voxels that their objects share.

All scores are sums over segments, over neurons, and over pairs of both. So they are exact for
any volume: its blocks are counted one by one, and a table too large for the memory is scored in
parts that hold whole segments or whole neurons.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from em_blocks.kernels.evaluation.contingency import Contingency, Side, merged

N_PARTS_SHOWN = 5


class Voi(NamedTuple):
    """Variation of information in bits; the sum of both is VOI."""

    split: float  # H(segmentation | truth): over-segmentation
    merge: float  # H(truth | segmentation): under-segmentation


class AdaptedRand(NamedTuple):
    """Pairs of voxels that are joined in both; error is 1 - F-score."""

    error: float
    precision: float  # of the pairs that the segmentation joins: merges lower it
    recall: float  # of the pairs that are joined in truth: splits lower it

    @classmethod
    def of_pairs(cls, *, joined: float, called: float, true: float) -> AdaptedRand:
        """From the numbers of pairs that are joined in both, in the segmentation and in truth."""
        return cls(
            error=1 - 2 * joined / (called + true) if called + true else 0.0,
            precision=joined / called if called else 1.0,
            recall=joined / true if true else 1.0,
        )


class ObjectError(NamedTuple):
    """What one object contributes to VOI, and the objects that it is made of."""

    id: int
    voxels: int
    bits: float
    n_parts: int
    largest: tuple[tuple[int, int], ...]  # (id, shared voxels), the largest first


class Evaluation(NamedTuple):
    """A segmentation against truth."""

    voi: Voi
    arand: AdaptedRand  # as scikit-image counts pairs
    arand_cremi: AdaptedRand  # as the scripts of SNEMI3D and CREMI count them
    n_voxels: int  # scored
    n_ignored: int  # left out because of their id
    n_segments: int
    n_neurons: int
    worst_splits: tuple[ObjectError, ...]  # neurons, by bits of VOI split
    worst_merges: tuple[ObjectError, ...]  # segments, by bits of VOI merge


class Sums(NamedTuple):
    """What the scores need of the sizes of objects; those of disjoint objects add up."""

    objects: int = 0
    voxels: int = 0
    squares: float = 0.0  # of voxels; 10^15 voxels would overflow int64
    logs: float = 0.0  # n log2 n

    @classmethod
    def of(cls, voxels: np.ndarray) -> Sums:
        n = voxels.astype(float)
        return cls(len(n), int(voxels.sum()), float(n @ n), float(n @ np.log2(n)))

    def plus(self, other: Sums) -> Sums:
        return Sums(
            self.objects + other.objects, self.voxels + other.voxels, self.squares + other.squares,
            self.logs + other.logs,
        )


def variation_of_information(table: Contingency) -> Voi:
    """VOI of all voxels of `table`; 0 of no voxels.

    References
    ----------
    Meila, Comparing clusterings, doi:10.1016/j.jmva.2006.11.013.
    """
    return _voi(Sums.of(table.voxels), *_both_sides(table))


def adapted_rand(table: Contingency) -> AdaptedRand:
    """Adapted Rand error of all voxels of `table`, as scikit-image counts it.

    Counted are pairs of two different voxels; segment 0 is an object like any other. See
    `adapted_rand_cremi` for the scripts of the challenges.

    References
    ----------
    Arganda-Carreras et al., doi:10.3389/fnana.2015.00142.
    """
    return _adapted_rand(Sums.of(table.voxels), *_both_sides(table))


def adapted_rand_cremi(table: Contingency, *, n_all: int) -> AdaptedRand:
    """Adapted Rand error of all voxels of `table`, as the scripts of SNEMI3D and CREMI count it.

    Every voxel is also paired with itself, and each voxel with segment 0 is an object of its own; of
    these pairs, one for each such voxel, the scripts count only the share 1 / `n_all`.

    Parameters
    ----------
    n_all : int
        Voxels of the volume, with those that are not scored.

    References
    ----------
    https://cremi.org/metrics/ (neuron segmentation); http://brainiac2.mit.edu/SNEMI3D/evaluation.
    """
    named = table.without(segmentation=[0])
    return _adapted_rand_cremi(
        Sums.of(named.voxels), Sums.of(_grouped(named, "segmentation")[2]),
        Sums.of(_grouped(table, "truth")[2]), n_all=n_all,
    )


def _both_sides(table: Contingency) -> tuple[Sums, Sums]:
    return Sums.of(_grouped(table, "segmentation")[2]), Sums.of(_grouped(table, "truth")[2])


def _voi(pairs: Sums, segments: Sums, neurons: Sums) -> Voi:
    total = max(1, pairs.voxels)
    # Differences of nearly equal sums may fall below 0 by rounding.
    return Voi(
        split=max(0.0, (neurons.logs - pairs.logs) / total),
        merge=max(0.0, (segments.logs - pairs.logs) / total),
    )


def _adapted_rand(pairs: Sums, segments: Sums, neurons: Sums) -> AdaptedRand:
    joined, called, true = (s.squares - s.voxels for s in (pairs, segments, neurons))
    return AdaptedRand.of_pairs(joined=joined, called=called, true=true)


def _adapted_rand_cremi(pairs: Sums, segments: Sums, neurons: Sums, *, n_all: int) -> AdaptedRand:
    """`pairs` and `segments` without segment 0, `neurons` with it."""
    alone = (neurons.voxels - pairs.voxels) / max(1, n_all)
    return AdaptedRand.of_pairs(
        joined=pairs.squares + alone, called=segments.squares + alone, true=neurons.squares
    )


def _grouped(table: Contingency, side: Side) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows ordered by the objects of one side.

    Returns
    -------
    order : (n,) int array
        Rows of `table`.
    starts : (m,) int array
        Place in `order` of the first row of every object.
    voxels : (m,) int64 array
        Size of every object.
    """
    ids = getattr(table, side)
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    starts = np.flatnonzero(np.append(len(ids) > 0, ids[1:] != ids[:-1]))
    sizes = np.add.reduceat(table.voxels[order], starts) if len(ids) else table.voxels
    return order, starts, sizes


def worst_objects(
    table: Contingency, side: Side, *, n: int, total: int | None = None
) -> list[ObjectError]:
    """The objects of one side that cost the most bits.

    Parameters
    ----------
    side : {"segmentation", "truth"}
        "truth": neurons by their part of VOI split, with the segments that they are split
        into. "segmentation": segments by their part of VOI merge, with the neurons in them.
    n : int
        How many objects at most; those that cost nothing are left out.
    total : int, optional
        Voxels of the whole volume, if `table` is one part of it.
    """
    order, starts, sizes = _grouped(table, side)
    if not len(sizes):
        return []
    voxels = table.voxels[order]
    logs = np.add.reduceat(voxels * np.log2(voxels), starts)
    bits = (sizes * np.log2(sizes) - logs) / (total or table.total)
    parts = getattr(table, "truth" if side == "segmentation" else "segmentation")[order]
    ends = np.append(starts[1:], len(order))
    worst = np.lexsort((starts, -bits))[:n]
    return [
        ObjectError(
            id=int(getattr(table, side)[order[starts[k]]]),
            voxels=int(sizes[k]),
            bits=float(bits[k]),
            n_parts=int(ends[k] - starts[k]),
            largest=_largest(parts[starts[k] : ends[k]], voxels[starts[k] : ends[k]]),
        )
        for k in worst
        if ends[k] - starts[k] > 1
    ]


def _largest(ids: np.ndarray, voxels: np.ndarray) -> tuple[tuple[int, int], ...]:
    order = np.lexsort((ids, -voxels))[:N_PARTS_SHOWN]
    return tuple(zip(ids[order].tolist(), voxels[order].tolist(), strict=True))


def evaluate(
    tables: Callable[[], Iterable[Contingency]],
    *,
    ignore_truth: Sequence[int],
    ignore_segmentation: Sequence[int] = (),
    n_worst: int = 10,
    max_rows: int = 20_000_000,
) -> Evaluation:
    """Score all voxels that `tables` count, without the ignored ids.

    Parameters
    ----------
    tables : function
        Gives the tables of all blocks; called again for every pass over them.
    ignore_truth, ignore_segmentation : ints
        Voxels with one of these ids are not scored. Not ignored, 0 is an object.
    max_rows : int
        Rows of tables that are merged at once, about 150 bytes each; if there are more, they
        are merged in parts, with two passes over the tables for each.
    """

    def kept() -> Iterator[Contingency]:
        for table in tables():
            yield table.without(truth=ignore_truth, segmentation=ignore_segmentation)

    all_voxels = sum(table.total for table in tables())
    rows, total = np.sum([(len(t), t.total) for t in kept()] or [(0, 0)], axis=0).tolist()
    n_parts = max(1, -(-rows // max_rows))
    pairs = segments = neurons = named_pairs = named_segments = Sums()
    splits: list[ObjectError] = []
    merges: list[ObjectError] = []
    for number in range(n_parts):
        whole_neurons = merged(t.part("truth", number, n_parts) for t in kept())
        whole_segments = whole_neurons if n_parts == 1 else merged(
            t.part("segmentation", number, n_parts) for t in kept()
        )
        pairs = pairs.plus(Sums.of(whole_neurons.voxels))
        neurons = neurons.plus(Sums.of(_grouped(whole_neurons, "truth")[2]))
        named_pairs = named_pairs.plus(_named(whole_neurons.segmentation, whole_neurons.voxels))
        ids, sizes = _sizes(whole_segments, "segmentation")
        segments = segments.plus(Sums.of(sizes))
        named_segments = named_segments.plus(_named(ids, sizes))
        splits += worst_objects(whole_neurons, "truth", n=n_worst, total=total)
        merges += worst_objects(whole_segments, "segmentation", n=n_worst, total=total)
    return Evaluation(
        voi=_voi(pairs, segments, neurons),
        arand=_adapted_rand(pairs, segments, neurons),
        arand_cremi=_adapted_rand_cremi(named_pairs, named_segments, neurons, n_all=all_voxels),
        n_voxels=total,
        n_ignored=all_voxels - total,
        n_segments=segments.objects,
        n_neurons=neurons.objects,
        worst_splits=_worst(splits, n_worst),
        worst_merges=_worst(merges, n_worst),
    )


def _sizes(table: Contingency, side: Side) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the objects of one side, and their voxels."""
    order, starts, sizes = _grouped(table, side)
    return getattr(table, side)[order[starts]], sizes


def _named(segments: np.ndarray, voxels: np.ndarray) -> Sums:
    """Of all but segment 0."""
    return Sums.of(voxels[segments != 0])


def _worst(found: list[ObjectError], n: int) -> tuple[ObjectError, ...]:
    return tuple(heapq.nsmallest(n, found, key=lambda item: (-item.bits, item.id)))
