"""Exits of objects in 13 directions against a slow count, and areas against closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from em_blocks.kernels.components.numbering import number_ids
from em_blocks.kernels.components.runs import find_runs
from em_blocks.kernels.objects.surface import (
    DIRECTIONS,
    count_exits,
    face_area,
    plane_weights,
    smooth_area,
)

ANISOTROPIC = (40.0, 4.6, 5.2)


def exits_of(labels):
    """Exits of every object of a volume, in the order of ids."""
    runs = find_runs(labels)
    ids, member = number_ids(runs.ids)
    return count_exits(np.pad(labels, ((0, 1), (1, 1), (1, 1))), runs, member, len(ids))


def slow_exits(labels, id):
    inside = np.pad(labels == id, 1)
    return [int((inside & ~np.roll(inside, np.negative(d), (0, 1, 2))).sum()) for d in DIRECTIONS]


def ball(radius_nm, voxel_size, centre=(0.3, 0.1, -0.2)):
    n = [int(np.ceil(radius_nm / size)) + 2 for size in voxel_size]
    axes = [(np.arange(-k, k + 1) + c) * s for k, s, c in zip(n, voxel_size, centre)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return (z**2 + y**2 + x**2 < radius_nm**2).astype(np.uint64)


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 6)] * 3), st.integers(1, 3))
def test_exits_are_those_of_a_slow_count(seed, shape, most):
    labels = np.random.default_rng(seed).integers(0, most + 1, shape).astype(np.uint64)
    found = exits_of(labels)
    expected = [slow_exits(labels, id) for id in np.unique(labels[labels > 0])]
    np.testing.assert_array_equal(found, np.reshape(expected, (-1, 13)))


def test_a_box_has_the_faces_of_its_voxels():
    labels = np.zeros((9, 9, 9), np.uint64)
    labels[1:3, 2:5, 1:8] = 5  # 2 x 3 x 7 voxels
    a, b, c = 2 * 40.0, 3 * 4.6, 7 * 5.2
    assert face_area(exits_of(labels), ANISOTROPIC) == pytest.approx([2 * (a * b + b * c + a * c)])


@pytest.mark.parametrize(
    ("voxel_size", "radius"),
    [((1.0, 1.0, 1.0), 20), ((8.0, 8.0, 8.0), 160), (ANISOTROPIC, 400), ((30.0, 6.0, 6.0), 300)],
)
def test_a_ball_has_its_area(voxel_size, radius):
    labels = ball(radius, voxel_size)
    assert smooth_area(exits_of(labels), voxel_size) == pytest.approx(
        [4 * np.pi * radius**2], rel=0.005
    )


def test_a_torus_has_its_area():
    major, minor = 30.0, 12.0
    z, y, x = np.mgrid[-14:15, -44:45, -44:45] + 0.2
    labels = ((np.hypot(y, x) - major) ** 2 + z**2 < minor**2).astype(np.uint64)
    expected = 4 * np.pi**2 * major * minor
    assert smooth_area(exits_of(labels), (1, 1, 1)) == pytest.approx([expected], rel=0.02)


def test_planes_of_cubic_voxels_are_wrong_by_8_percent_at_most():
    weights = plane_weights((2.0, 2.0, 2.0))
    normals = np.random.default_rng(0).normal(size=(2000, 3))
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    area = np.abs(normals @ np.array(DIRECTIONS).T) * 2 / 8 @ weights
    axes = np.abs(np.eye(3) @ np.array(DIRECTIONS).T) * 2 / 8 @ weights
    assert 0.92 < area.min() <= area.max() < 1.03
    assert axes == pytest.approx([0.9225] * 3, abs=1e-3)


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_an_object_turned_by_right_angles_keeps_its_area(axes):
    labels = np.random.default_rng(3).integers(0, 2, (7, 8, 9)).astype(np.uint64)
    turned = np.transpose(labels, axes)[::-1]
    same = [smooth_area(exits_of(np.ascontiguousarray(a)), (4, 4, 4)) for a in (labels, turned)]
    np.testing.assert_allclose(*same, rtol=1e-9)
