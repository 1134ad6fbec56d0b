"""What went wrong with objects that have no partner: split, merged, missed, false or inexact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from em_blocks.kernels.evaluation.object_matching import ObjectScores, Overlaps

Kind = Literal["split", "merge", "missed", "false", "inexact"]
KINDS: tuple[Kind, ...] = ("split", "merge", "missed", "false", "inexact")

_LITTLE = 0.25
"""Objects that share less than this part of one of them are not the same thing."""


class Error(NamedTuple):
    """One thing that went wrong.

    Attributes
    ----------
    kind : str
        * split: several predicted objects lie mainly in this true one;
        * merge: several true objects lie mainly in this predicted one;
        * missed: a true object without a partner, of which less than a quarter is predicted;
        * false: a predicted one without a partner, of which less than a quarter is true;
        * inexact: any other one without a partner: it was found, but its IoU is too low.
    truth, prediction : tuples of int
        Places of the objects in `Overlaps`; the one with the most shared voxels first.
    voxels : int
        How much is wrong: voxels of the missed or false object; those that a split or a merge puts
        apart from or to the largest part; of an inexact one, those that only one side has.
    """

    kind: Kind
    truth: tuple[int, ...]
    prediction: tuple[int, ...]
    voxels: int


class Causes(NamedTuple):
    """Why objects have no partner.

    Attributes
    ----------
    truth, prediction : (n,) and (m,) arrays of str
        A kind of error; "" of objects that match or are left out.
    """

    truth: np.ndarray
    prediction: np.ndarray

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of objects by cause; the sums are fn and fp."""
        return {
            name: {kind: counted[kind] for kind in KINDS if kind != other}
            for name, other, counted in (
                ("fn", "false", Counter(self.truth.tolist())),
                ("fp", "missed", Counter(self.prediction.tolist())),
            )
        }


class Relation(NamedTuple):
    """Objects of one side, and in which of the other side each mainly lies.

    Attributes
    ----------
    main : (n,) int64 array
        Place of the object of the other side that shares the most voxels (the first of equal ones);
        -1 if that is less than a quarter of the object.
    covered : (n,) int64 array
        Voxels that it shares with any object of the other side.
    """

    main: np.ndarray
    covered: np.ndarray

    def members(self, n: int) -> np.ndarray:
        """Return how many objects lie mainly in each of the `n` of the other side."""
        return np.bincount(self.main[self.main >= 0], minlength=n)


def relate(
    mine: np.ndarray, theirs: np.ndarray, shared: np.ndarray, voxels: np.ndarray
) -> Relation:
    """Find in which object of the other side each object mainly lies.

    Parameters
    ----------
    mine, theirs, shared : (k,) int arrays
        Places of two objects that overlap, and their shared voxels.
    voxels : (n,) int array
        Sizes of the objects.
    """
    covered = np.zeros(len(voxels), np.int64)
    np.add.at(covered, mine, shared)
    main = np.full(len(voxels), -1)
    most = np.lexsort((-theirs, shared))  # the last one is kept
    main[mine[most]] = np.where(
        shared[most] >= _LITTLE * voxels[mine[most]], theirs[most], -1
    )
    return Relation(main, covered)


def relations(found: Overlaps) -> tuple[Relation, Relation]:
    """Return in what true objects mainly lie, and predicted ones."""
    return (
        relate(found.rows, found.columns, found.shared, found.truth_voxels),
        relate(found.columns, found.rows, found.shared, found.prediction_voxels),
    )


def find_causes(found: Overlaps, scores: ObjectScores) -> Causes:
    """Return why each object that counts has no partner.

    A true object of a merge is not also called split, nor a predicted one of a split merged.
    """
    parts, pieces = relations(found)
    split, merged = _split(found, pieces), _merged(found, parts)
    truth = np.select(
        [np.append(merged, False)[parts.main], split, parts.covered < _LITTLE * found.truth_voxels],
        ["merge", "split", "missed"], "inexact",
    )
    prediction = np.select(
        [np.append(split, False)[pieces.main], merged,
         pieces.covered < _LITTLE * found.prediction_voxels],
        ["split", "merge", "false"], "inexact",
    )
    return Causes(
        np.where(scores.counted_truth & (scores.matched_truth < 0), truth, ""),
        np.where(scores.counted_prediction & (scores.matched_prediction < 0), prediction, ""),
    )


def _split(found: Overlaps, pieces: Relation) -> np.ndarray:
    """Return which true objects are split: specks in one that was missed are no pieces of it."""
    n = len(found.truth_ids)
    inside = np.zeros(n, np.int64)
    of_piece = pieces.main[found.columns] == found.rows
    np.add.at(inside, found.rows[of_piece], found.shared[of_piece])
    return (pieces.members(n) > 1) & (inside >= _LITTLE * found.truth_voxels)


def _merged(found: Overlaps, parts: Relation) -> np.ndarray:
    """Return which predicted objects join several true ones."""
    return parts.members(len(found.prediction_ids)) > 1


def find_errors(found: Overlaps, scores: ObjectScores, causes: Causes) -> list[Error]:
    """List all errors, the one with the most voxels first; a split or a merge is one error."""
    edges = _Edges(found)
    errors = [
        *_joined("split", found, edges, scores, causes), *_joined("merge", found, edges, scores, causes),
        *(Error("missed", (int(n),), (), int(found.truth_voxels[n]))
          for n in np.flatnonzero(causes.truth == "missed")),
        *(Error("false", (), (int(n),), int(found.prediction_voxels[n]))
          for n in np.flatnonzero(causes.prediction == "false")),
        *_inexact(found, edges, causes),
    ]
    return sorted(errors, key=lambda e: (-e.voxels, KINDS.index(e.kind), e.truth, e.prediction))


class _Edges:
    """Overlaps by the object of one side."""

    def __init__(self, found: Overlaps):
        self.shared = found.shared
        self._sides = [
            (other, order, np.searchsorted(mine[order], np.arange(n + 1)))
            for mine, other, n in (
                (found.rows, found.columns, len(found.truth_ids)),
                (found.columns, found.rows, len(found.prediction_ids)),
            )
            for order in [np.lexsort((other, -found.shared, mine))]
        ]

    def of(self, side: int, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the partners of an object of truth (0) or prediction (1), and the shared voxels."""
        other, order, starts = self._sides[side]
        mine = order[starts[place] : starts[place + 1]]
        return other[mine], self.shared[mine]


def _joined(
    kind: Kind, found: Overlaps, edges: _Edges, scores: ObjectScores, causes: Causes
) -> Iterator[Error]:
    """Yield splits or merges of which at least one object counts and has no partner."""
    parts, pieces = relations(found)
    side = 0 if kind == "split" else 1
    wholes = _split(found, pieces) if kind == "split" else _merged(found, parts)
    main = pieces.main if kind == "split" else parts.main
    cause_of_whole = (causes.truth, causes.prediction)[side]
    cause_of_member = (causes.prediction, causes.truth)[side]
    for whole in np.flatnonzero(wholes).tolist():
        others, shared = edges.of(side, whole)
        inside = main[others] == whole
        members, voxels = others[inside].tolist(), shared[inside]
        if cause_of_whole[whole] or any(cause_of_member[n] for n in members):
            objects = ((whole,), tuple(members))
            yield Error(kind, objects[side], objects[1 - side], int(voxels[1:].sum()))


def _inexact(found: Overlaps, edges: _Edges, causes: Causes) -> Iterator[Error]:
    """Yield objects whose IoU is too low; two that overlap each other most are one error."""
    told = set()
    for side, cause in enumerate(causes):
        for place in np.flatnonzero(cause == "inexact").tolist():
            others, shared = edges.of(side, place)
            pair = (place, int(others[0])) if side == 0 else (int(others[0]), place)
            if pair in told:
                continue
            told.add(pair)
            either = found.truth_voxels[pair[0]] + found.prediction_voxels[pair[1]]
            yield Error("inexact", pair[:1], pair[1:], int(either - 2 * shared[0]))
