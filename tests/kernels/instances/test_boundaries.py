"""Boundaries of fragments are counted exactly, and merged by what lies along them."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.instances.boundaries import (
    BINS,
    FEATURES,
    Boundaries,
    added,
    boundaries,
    features,
)
from em_blocks.kernels.instances.merging import Fragments, Model, fit, merged
from em_blocks.tasks.instances.merge import Feature

VOXEL_SIZE = (40.0, 4.6, 4.0)


def random_case(shape, n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n + 1, shape).astype(np.uint32) * np.uint32(1_000_003)
    return labels, *(rng.integers(0, 256, shape, np.uint8) for _ in range(2))


def slow_boundaries(labels, contour, distance):
    """One face after the other: faces by axis, and both histograms, by pair."""
    found = {}
    for index in np.ndindex(*labels.shape):
        for axis in range(3):
            before = tuple(i - (a == axis) for a, i in enumerate(index))
            a, b = int(labels[index]), int(labels[before]) if min(before) >= 0 else 0
            if 0 in (a, b) or a == b:
                continue
            faces, high, low = found.setdefault(
                (min(a, b), max(a, b)), (np.zeros(3, int), np.zeros(BINS, int), np.zeros(BINS, int))
            )
            faces[axis] += 1
            high[max(contour[index], contour[before]) // 8] += 1
            low[min(distance[index], distance[before]) // 8] += 1
    return found


def as_dict(found):
    rows = zip(*found, strict=True)
    return {(int(u), int(v)): rest for u, v, *rest in rows}


def assert_equal(found, expected):
    found = as_dict(found)
    assert list(found) == sorted(expected)
    for pair, columns in expected.items():
        for one, other in zip(found[pair], columns, strict=True):
            np.testing.assert_array_equal(one, other)


sizes = st.tuples(*[st.integers(1, 6)] * 3)


@given(shape=sizes, n=st.integers(1, 40), seed=st.integers(0, 99))
def test_every_face_is_counted_once(shape, n, seed):
    case = random_case(shape, n, seed)
    assert_equal(boundaries(*case), slow_boundaries(*case))


@given(shape=sizes, cut=sizes, n=st.integers(1, 40), seed=st.integers(0, 99))
def test_boundaries_of_boxes_add_up_to_those_of_the_whole(shape, cut, n, seed):
    case = random_case(shape, n, seed)
    parts = []
    for which in np.ndindex(2, 2, 2):
        begin = np.where(which, np.minimum(cut, shape), 0)
        end = np.where(which, shape, np.minimum(cut, shape))
        seen = np.maximum(begin - 1, 0)
        box = tuple(slice(b, e) for b, e in zip(seen, end, strict=True))
        parts.append(boundaries(*(values[box] for values in case), begin=begin - seen))
    rows = Boundaries(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    assert_equal(added(rows), slow_boundaries(*case))


def test_features_of_a_boundary_by_hand():
    contour, distance = np.zeros((1, BINS), int), np.zeros((1, BINS), int)
    contour[0, [4, 16]] = 5, 5  # half of the faces 32..39, half 128..135, of 256
    distance[0, 31] = 10
    found = Boundaries(np.array([3]), np.array([9]), np.array([[4, 5, 1]]), contour, distance)
    volumes = (np.array([7360.0]), np.array([736.0]))  # 10 voxels and 1 of 736 nm3
    [row] = features(found, volumes, VOXEL_SIZE)
    # 10 %: 1 of the 5 faces of bin 4; 50 %: all of them; 90 %: 4 of 5 of bin 16.
    expected = [
        (4 + 0.2) / 32, 5 / 32, (16 + 0.8) / 32, 31.5 / 32, 31.9 / 32,
        np.log(4 * 4.6 * 4 + 4.6 * 4), np.log(5 * 40 * 4 + 40 * 4.6 + 40 * 4),
        np.log(2 * 736), np.log(11 * 736),
    ]
    np.testing.assert_allclose(row, expected, rtol=1e-12)
    assert len(row) == len(FEATURES)


def test_the_features_of_a_config_are_those_of_the_kernel():
    assert get_args(Feature) == FEATURES


def chain(*values):
    """Fragments 10, 20, ... of which each touches the next, by faces with one contour."""
    n = len(values)
    contour = np.zeros((n, BINS), int)
    contour[np.arange(n), values] = 100
    u = 10 * np.arange(1, n + 1)
    faces = np.full((n, 3), 5)
    return Boundaries(u, u + 10, faces, contour, np.eye(BINS, dtype=int)[np.zeros(n, int)])


def fragments(n, voxels=1000):
    return Fragments(10 * np.arange(1, n + 1), np.full(n, voxels))


BY_CONTOUR = Model(-5.0, {"contour_50": 10.0})
"""Even odds at a contour of 0.5."""


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.5, [10, 10, 30, 30, 30]), (0.95, [10, 10, 10, 10, 10]), (0.01, [10, 20, 30, 40, 50])],
)
def test_what_a_chain_of_weak_boundaries_connects_becomes_its_smallest_id(threshold, expected):
    found = merged(chain(15, 16, 2, 8), fragments(5), BY_CONTOUR, threshold=threshold,
                   voxel_size=VOXEL_SIZE)
    assert found.tolist() == expected


def test_nothing_is_merged_where_nothing_touches():
    found = merged(chain(), fragments(2), BY_CONTOUR, threshold=0.5, voxel_size=VOXEL_SIZE)
    assert found.tolist() == [10, 20]
    assert not len(merged(chain(), fragments(0), BY_CONTOUR, threshold=0.5, voxel_size=VOXEL_SIZE))


def test_a_fit_tells_contacts_from_necks_and_leaves_out_what_has_no_truth():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 32, 400)
    owner = np.cumsum([1, *(values >= 20)])  # a new instance behind every boundary that is sure
    owner[50:60] = 0
    names = ("contour_50", "area_z")
    made = fit(chain(*values), fragments(401), owner, voxel_size=VOXEL_SIZE, names=names)
    assert set(made.weights) == set(names) and made.weights["contour_50"] > 5
    assert abs(made.weights["area_z"]) < 1e-9  # all areas are alike
    found = merged(chain(*values), fragments(401), made, threshold=0.5, voxel_size=VOXEL_SIZE)
    cut = found[1:] != found[:-1]
    assert (cut == (values >= 20)).mean() > 0.97


@pytest.mark.parametrize("owner", [[1, 2, 3], [1, 1, 1], [0, 1, 0]])
def test_without_both_kinds_of_boundaries_there_is_nothing_to_fit(owner):
    assert fit(chain(3, 9), fragments(3), np.array(owner), voxel_size=VOXEL_SIZE) is None
