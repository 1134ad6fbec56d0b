"""Second moments: exact over parts, and the ellipsoids of boxes, rods and balls."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from em_blocks.kernels.components.numbering import number_ids
from em_blocks.kernels.components.runs import find_runs
from em_blocks.kernels.objects.moments import (
    PAIRS,
    MomentParts,
    covariances,
    second_moments,
    shapes_of,
    shifted,
)


def parts_of(labels):
    """Moments of the object 1 of a volume, its indices counted from 0."""
    runs = find_runs(labels)
    ids, member = number_ids(runs.ids)
    begin = np.zeros((len(ids), 3), np.int64)
    second = second_moments(runs, member, begin, labels.shape)
    first = np.argwhere(labels == 1).sum(axis=0)[None]
    return MomentParts(np.array([(labels == 1).sum()]), first, second)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 7)] * 3))
def test_sums_of_products_are_those_of_the_voxels(seed, shape):
    labels = np.random.default_rng(seed).integers(0, 3, shape)
    runs = find_runs(labels)
    ids, member = number_ids(runs.ids)
    begin = np.random.default_rng(seed).integers(0, 5, (len(ids), 3))
    found = second_moments(runs, member, begin, shape)
    for row, id in enumerate(ids):
        places = np.argwhere(labels == id) - begin[row]
        assert found[row].tolist() == [(places[:, a] * places[:, b]).sum() for a, b in PAIRS]


@pytest.mark.parametrize("far", [0, 5, 2**18])
def test_parts_that_are_moved_have_the_moments_of_moved_voxels(far):
    labels = np.random.default_rng(1).integers(0, 2, (3, 4, 5))
    shift = np.array([[far, 2 * far, 1]])
    places = np.argwhere(labels == 1) + shift
    found = shifted(parts_of(labels), shift)
    assert found.first.tolist() == [places.sum(axis=0).tolist()]
    assert found.second.tolist() == [[(places[:, a] * places[:, b]).sum() for a, b in PAIRS]]


def test_totals_above_64_bits_are_exact():
    """A thousand parts of 2^27 voxels, 2^17 voxels away from the first of them."""
    n, far = 2**27, 2**17
    one = MomentParts(np.array([n]), np.zeros((1, 3), np.int64), np.zeros((1, 6), np.int64))
    parts = [shifted(one, np.array([[0, 0, far * (k % 2)]])) for k in range(1000)]
    joined = MomentParts(*map(np.concatenate, zip(*parts)))
    found = covariances(joined, np.zeros(1000, np.int64), 1)
    assert sum(int(p.second[0, 5]) for p in parts) > 2**63
    assert found[0, 2, 2] == far**2 / 4 + 1 / 12
    backwards = MomentParts(*(column[::-1] for column in joined))
    assert np.array_equal(found, covariances(backwards, np.zeros(1000, np.int64), 1))


def test_a_box_has_the_axes_of_its_edges():
    parts = parts_of(np.ones((2, 3, 4), np.int64))
    found = shapes_of(covariances(parts, np.zeros(1, np.int64), 1), np.array([40.0, 4.6, 5.2]))
    edges = np.array([2 * 40.0, 4 * 5.2, 3 * 4.6])
    assert found.axes[0] == pytest.approx(2 * np.sqrt(5 / 12) * edges)
    assert found.major[0] == pytest.approx([1, 0, 0])
    assert found.gyration_radius[0] == pytest.approx(np.sqrt((edges**2).sum() / 12))


def test_a_ball_has_its_diameter():
    z, y, x = np.mgrid[-22:23, -22:23, -22:23] + 0.25
    parts = parts_of((z**2 + y**2 + x**2 < 400).astype(np.int64))
    found = shapes_of(covariances(parts, np.zeros(1, np.int64), 1), np.ones(3))
    assert found.axes[0] == pytest.approx([40] * 3, rel=0.003)
    assert found.gyration_radius[0] == pytest.approx(20 * np.sqrt(3 / 5), rel=0.003)


def test_an_oblique_rod_points_along_its_axis():
    labels = np.zeros((60, 60, 60), np.int64)
    for k in range(60):
        labels[k, 59 - k, k] = 1
    found = shapes_of(covariances(parts_of(labels), np.zeros(1, np.int64), 1), np.ones(3))
    assert np.abs(found.major[0]) == pytest.approx([3**-0.5] * 3, abs=1e-9)
    assert found.major[0].max() > 0
    assert found.major[0, 0] * found.major[0, 1] < 0 < found.major[0, 0] * found.major[0, 2]
