"""Linking over faces: known overlaps around the limits, and the laws of union."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from em_blocks.kernels.linking.links import (
    BACKGROUND,
    FaceVoxels,
    linked,
    overlaps,
    scores,
    united,
)
from em_blocks.kernels.linking.trace import trace


def voxels(*rows, face=0):
    """Rows of (a, b, voxels) of one face; a and b may be BACKGROUND."""
    a, b, n = np.array(rows, np.int64).reshape(-1, 3).T
    return FaceVoxels(np.full(len(a), face), a, b, n)


def pair(shared, area_a, area_b):
    """One label on either side, with these voxels."""
    return voxels((0, 1, shared), (0, BACKGROUND, area_a - shared), (BACKGROUND, 1, area_b - shared))


def links(found, criterion="sum", threshold=0.2, mutual_best=False):
    pairs = overlaps(found)
    accepted = linked(
        pairs, scores(pairs, criterion), threshold=threshold, mutual_best=mutual_best
    )
    return set(zip(pairs.a[accepted].tolist(), pairs.b[accepted].tolist(), strict=True))


def test_areas_are_those_of_the_whole_face():
    pairs = overlaps(pair(7, 10, 13))
    assert [column.tolist() for column in pairs] == [[0], [0], [1], [7], [10], [13]]


def test_rows_of_one_pair_add_up_and_faces_do_not():
    one, other = voxels((4, 5, 2), (4, 5, 3), (4, BACKGROUND, 1)), voxels((4, 5, 7), face=3)
    pairs = overlaps(FaceVoxels(*map(np.concatenate, zip(one, other, strict=True))))
    assert pairs.face.tolist() == [0, 3] and pairs.shared.tolist() == [5, 7]
    assert pairs.area_a.tolist() == [6, 7] and pairs.area_b.tolist() == [5, 7]


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [("iou", 6 / 24), ("dice", 12 / 30), ("min", 6 / 10), ("sum", 6 / 30)],
)
def test_every_criterion_of_6_voxels_of_10_and_20(criterion, expected):
    assert scores(overlaps(pair(6, 10, 20)), criterion).tolist() == [expected]


@pytest.mark.parametrize(
    ("criterion", "threshold", "below", "at"),
    [
        ("sum", 0.2, (199, 400, 600), (200, 400, 600)),
        ("iou", 0.25, (199, 400, 599), (200, 400, 600)),
        ("dice", 0.4, (199, 400, 600), (200, 400, 600)),
        ("min", 0.5, (199, 400, 600), (200, 400, 600)),
    ],
)
def test_a_pair_is_linked_from_the_threshold_on(criterion, threshold, below, at):
    assert links(pair(*below), criterion, threshold) == set()
    assert links(pair(*at), criterion, threshold) == {(0, 1)}


def test_the_rule_0_2_of_the_sum_is_an_iou_of_0_25():
    for shared in range(1, 101):
        found = pair(shared, 150, 137)
        assert links(found, "sum", 0.2) == links(found, "iou", 0.25)


ONE_TO_TWO = voxels((0, 1, 60), (0, 2, 40))
TWO_TO_ONE = voxels((0, 2, 60), (1, 2, 40))


@pytest.mark.parametrize("found", [ONE_TO_TWO, TWO_TO_ONE], ids=["one to two", "two to one"])
def test_mutual_best_keeps_the_larger_of_two_links(found):
    rows = set(zip(found.a.tolist(), found.b.tolist(), strict=True))
    assert links(found) == rows
    assert links(found, mutual_best=True) == {(int(found.a[0]), int(found.b[0]))}


def test_equal_partners_are_told_apart_by_their_voxels_then_by_their_nodes():
    """Both score 0.5 of the smaller one."""
    more = voxels((0, 1, 5), (0, 2, 10), (BACKGROUND, 1, 5), (BACKGROUND, 2, 10), (0, BACKGROUND, 85))
    assert links(more, "min", 0.5, mutual_best=True) == {(0, 2)}
    same = voxels((0, 1, 50), (0, 2, 50))
    assert links(same, "iou", 0.5, mutual_best=True) == {(0, 1)}


def test_background_is_no_partner():
    assert links(voxels((BACKGROUND, 1, 9), (0, BACKGROUND, 9), (BACKGROUND, BACKGROUND, 9))) == set()


def test_objects_are_numbered_by_their_first_nodes():
    assert united(6, np.array([4, 5]), np.array([1, 4])).tolist() == [1, 2, 3, 4, 2, 2]
    assert united(3, np.zeros(0, int), np.zeros(0, int)).tolist() == [1, 2, 3]
    assert united(0, np.zeros(0, int), np.zeros(0, int)).tolist() == []


def test_the_trace_counts_links_splits_merges_ends_and_starts():
    found = FaceVoxels(*map(np.concatenate, zip(
        voxels((0, 10, 60), (0, 11, 40), (1, BACKGROUND, 5)),
        voxels((10, 20, 50), (11, 20, 50), (BACKGROUND, 21, 3), (10, 22, 1), face=1), strict=True,
    )))
    pairs = overlaps(found)
    found = trace(found, pairs, linked(pairs, scores(pairs, "sum"), threshold=0.2), 3)
    assert {name: values.tolist() for name, values in found._asdict().items()} == {
        "links": [2, 2, 0], "splits": [1, 0, 0], "merges": [0, 1, 0], "ends": [1, 0, 0],
        "starts": [0, 2, 0],
    }
    assert found.totals() == {"links": 4, "splits": 1, "merges": 1, "ends": 1, "starts": 2}


# -- laws -----------------------------------------------------------------------------------


PLANES = arrays(np.int64, (6, 7), elements=st.integers(0, 4))


def slow_links(low, high, threshold):
    """Pairs of ids whose overlap is at least a share of both areas, by masks."""
    return {
        (a, b) for a in np.unique(low[low > 0]).tolist() for b in np.unique(high[high > 0]).tolist()
        if ((low == a) & (high == b)).sum() >= threshold * ((low == a).sum() + (high == b).sum())
    }


def counted(low, high):
    ids = [plane.reshape(-1) - 1 for plane in (low, high)]  # 0 becomes BACKGROUND
    return FaceVoxels(np.zeros(low.size, np.int64), *ids, np.ones(low.size, np.int64))


@given(PLANES, PLANES)
def test_links_are_those_that_masks_find(low, high):
    found = {(a + 1, b + 1) for a, b in links(counted(low, high), "sum", 0.25)}
    assert found == slow_links(low, high, 0.25)


@given(PLANES, PLANES, st.sampled_from(["iou", "dice", "min", "sum"]))
def test_mutual_best_links_are_one_to_one_and_among_all_links(low, high, criterion):
    found = counted(low, high)
    best = links(found, criterion, 0.1, mutual_best=True)
    assert best <= links(found, criterion, 0.1)
    assert len({a for a, _ in best}) == len({b for _, b in best}) == len(best)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20), st.randoms())
def test_objects_do_not_depend_on_the_order_of_links(edges, random):
    shuffled = [edge if random.random() < 0.5 else edge[::-1] for edge in edges]
    random.shuffle(shuffled)
    first, second = (
        united(10, *np.array(rows, np.int64).reshape(-1, 2).T) for rows in (edges, shuffled)
    )
    np.testing.assert_array_equal(first, second)
    assert (np.unique(first) == np.arange(1, first.max() + 1)).all()
    assert all(first[a] == first[b] for a, b in edges)
