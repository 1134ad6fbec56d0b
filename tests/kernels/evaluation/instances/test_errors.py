"""Errors of objects: by hand, and against a slow reference of the whole volume."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.evaluation.instances.errors import KINDS, find_causes, find_errors
from em_blocks.kernels.evaluation.object_matching import LeftOut, match_objects, overlaps

LABELS = hnp.arrays(np.uint8, (1, 3, 9), elements=st.integers(0, 4))


def row(text):
    return np.array([[[int(letter) for letter in text]]])


def errors_of(prediction, truth, iou=0.5, **options):
    """Kind, true ids, predicted ids and voxels of every error, and the causes."""
    if isinstance(truth, str):
        prediction, truth = row(prediction), row(truth)
    found = overlaps(count_overlaps(segmentation=prediction, truth=truth))
    scores = match_objects(found, iou=iou, **options)
    causes = find_causes(found, scores)
    listed = [
        (e.kind, found.truth_ids[list(e.truth)].tolist(),
         found.prediction_ids[list(e.prediction)].tolist(), e.voxels)
        for e in find_errors(found, scores, causes)
    ]
    return listed, causes, scores


@pytest.mark.parametrize(
    ("prediction", "truth", "wanted"),
    [
        ("11110000", "11110000", []),
        ("22221000", "11111000", [("split", [1], [2, 1], 1)]),  # the larger piece matches
        ("22211000", "11111000", [("split", [1], [2, 1], 2)]),
        ("33221100", "11111100", [("split", [1], [1, 2, 3], 4)]),  # none matches
        ("11111000", "11112000", [("merge", [1, 2], [1], 1)]),
        ("11111100", "11223300", [("merge", [1, 2, 3], [1], 4)]),
        ("00000000", "11100000", [("missed", [1], [], 3)]),
        ("11100000", "00000000", [("false", [], [1], 3)]),
        ("10000000", "11111000", [("missed", [1], [], 5), ("inexact", [1], [1], 4)]),
        ("11000000", "11111000", [("inexact", [1], [1], 3)]),
        ("01111111", "11110000", [("inexact", [1], [1], 5)]),
        ("00011111", "11110000", [("inexact", [1], [1], 7), ("false", [], [1], 5)]),
        # A border of two objects that is drawn one voxel off is no merge, nor a split.
        ("11111222", "11112222", []),
        # The larger part of 2 lies in 1, and the rest is an object of its own: both match.
        ("1111222000", "1111122000", []),
    ],
)
def test_kinds_of_errors_by_hand(prediction, truth, wanted):
    assert errors_of(prediction, truth)[0] == wanted


def test_a_quarter_is_enough_to_be_the_same_thing():
    """Of four voxels one is seen; of five, one is too little."""
    assert errors_of("1000", "1111")[1].truth.tolist() == ["inexact"]
    assert errors_of("10000", "11111")[1].truth.tolist() == ["missed"]
    assert errors_of("1111", "1000")[1].prediction.tolist() == ["inexact"]
    assert errors_of("11111", "10000")[1].prediction.tolist() == ["false"]
    assert errors_of("11111000", "11112222")[0] == [
        ("merge", [1, 2], [1], 1)
    ]
    assert errors_of("111110000", "111122222")[0] == [("missed", [2], [], 5)]
    # Two specks in a true object are pieces of it only if they are a quarter of it.
    assert errors_of("12000000", "11111111")[1].truth.tolist() == ["split"]
    assert errors_of("120000000", "111111111")[1].truth.tolist() == ["missed"]


def test_an_object_may_be_split_and_a_part_of_a_merge():
    """2 has most of 1 and all of 3; 1 is the rest of 1."""
    listed, causes, _ = errors_of("11222222220", "11111133330", 0.75)
    assert listed == [("merge", [1, 3], [2], 4), ("split", [1], [2, 1], 2)]
    assert causes.truth.tolist() == ["merge", "merge"]
    assert causes.prediction.tolist() == ["split", "split"]


def test_errors_are_sorted_by_their_voxels():
    listed, _, _ = errors_of("0022200330", "1100000000")
    assert listed == [("false", [], [2], 3), ("missed", [1], [], 2), ("false", [], [3], 2)]


def test_objects_that_are_left_out_are_no_errors():
    none = np.zeros(1, bool)
    all_of_it = np.ones(1, bool)
    left_out = LeftOut(none, all_of_it, all_of_it)
    listed, causes, scores = errors_of("1100", "0011", left_out=left_out)
    assert listed == [] and (scores.fp, scores.fn) == (0, 0)
    assert causes.truth.tolist() == causes.prediction.tolist() == [""]
    listed, _, scores = errors_of("1100", "0011", left_out=LeftOut(none, none, all_of_it))
    assert listed == [("missed", [1], [], 2)] and (scores.fp, scores.fn) == (0, 1)


# -- a slow reference ---------------------------------------------------------------------


def main_partner(mine, others):
    """The id that has the most voxels of a mask, and how many; the lowest of equal ones."""
    ids, counts = np.unique(others[mine & (others > 0)], return_counts=True)
    return (0, 0) if not len(ids) else (int(ids[counts.argmax()]), int(counts.max()))


def slow_causes(prediction, truth, scores, ids):
    """Why objects have no partner, mask by mask."""
    main = {}
    for side, labels, others in (("t", truth, prediction), ("p", prediction, truth)):
        for id in np.unique(labels[labels > 0]).tolist():
            partner, shared = main_partner(labels == id, others)
            main[side, id] = partner if 4 * shared >= (labels == id).sum() else 0
    merged = {p for p in range(1, 5) if sum(main.get(("t", t)) == p for t in range(1, 5)) > 1}
    split = set()
    for t in range(1, 5):
        pieces = [p for p in range(1, 5) if main.get(("p", p)) == t]
        inside = (np.isin(prediction, pieces) & (truth == t)).sum()
        if len(pieces) > 1 and 4 * inside >= (truth == t).sum():
            split.add(t)
    found = {}
    for t, matched in zip(ids[0], scores.matched_truth):
        if matched < 0:
            mine = truth == t
            little = 4 * (mine & (prediction > 0)).sum() < mine.sum()
            found["t", t] = ("merge" if main["t", t] in merged else "split" if t in split
                             else "missed" if little else "inexact")
    for p, matched in zip(ids[1], scores.matched_prediction):
        if matched < 0:
            mine = prediction == p
            little = 4 * (mine & (truth > 0)).sum() < mine.sum()
            found["p", p] = ("split" if main["p", p] in split else "merge" if p in merged
                             else "false" if little else "inexact")
    return found


@settings(max_examples=150)
@given(LABELS, LABELS, st.sampled_from([0.3, 0.5, 0.75]))
def test_causes_are_those_of_a_slow_reference_and_add_up(prediction, truth, iou):
    listed, causes, scores = errors_of(prediction, truth, iou)
    ids = [np.unique(v[v > 0]).tolist() for v in (truth, prediction)]
    wanted = slow_causes(prediction, truth, scores, ids)
    ours = {("t", i): c for i, c in zip(ids[0], causes.truth.tolist()) if c}
    ours |= {("p", i): c for i, c in zip(ids[1], causes.prediction.tolist()) if c}
    assert ours == wanted
    counts = causes.counts()
    assert sum(counts["fn"].values()) == scores.fn and sum(counts["fp"].values()) == scores.fp
    # Every object without a partner is in an error of its cause.
    named = {(side, id, error[0]) for error in listed
             for side, ids in (("t", error[1]), ("p", error[2])) for id in ids}
    assert {(*key, cause) for key, cause in wanted.items()} <= named
    assert all(e[0] in KINDS and e[3] >= 0 for e in listed)
    assert [e[3] for e in listed] == sorted((e[3] for e in listed), reverse=True)
