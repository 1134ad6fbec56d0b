"""Deformations: exact where they can be."""

import numpy as np
import pytest
from scipy import ndimage

from em_blocks.kernels.transforms.deform import deformed_points, deformed_positions, sample

STILL = {
    "voxel_size": (40, 4, 4), "spacing_nm": (200, 40, 40), "jitter_nm": (0, 0, 0),
    "angle": 0.0, "scale": (1, 1, 1),
}  # fmt: skip


def positions(shape, **changes):
    return deformed_positions(np.random.default_rng(0), shape, **STILL | changes)


def test_no_deformation_leaves_every_voxel_in_its_place():
    shape = (3, 5, 4)
    np.testing.assert_allclose(positions(shape), np.indices(shape), atol=1e-5)


def test_a_quarter_turn_is_rot90():
    volume = np.random.default_rng(1).integers(0, 99, (3, 7, 7))
    turned = sample(volume, positions(volume.shape, angle=np.pi / 2), interpolate=False)
    np.testing.assert_array_equal(turned, np.rot90(volume, -1, axes=(1, 2)))


def test_a_magnification_of_two_halves_the_distance_from_the_centre():
    made = positions((5, 5, 5), scale=(1, 2, 2))
    np.testing.assert_allclose(made[2][0, 0], [1, 1.5, 2, 2.5, 3], atol=1e-5)
    np.testing.assert_allclose(made[0][:, 0, 0], np.arange(5), atol=1e-5)


def test_displacements_are_in_nm_and_end_at_three_standard_deviations():
    made = positions((6, 50, 50), jitter_nm=(40, 8, 0)) - np.indices((6, 50, 50))
    np.testing.assert_allclose(made[2], 0, atol=1e-5)
    assert np.abs(made[0]).max() <= 3.01
    assert np.abs(made[1]).max() <= 6.01
    assert 0.4 < made[0].std() < 1.6
    assert 1 < made[1].std() < 3


def test_large_labels_pass_unchanged():
    volume = np.full((2, 3, 3), 2**63 - 1, np.uint64)
    np.testing.assert_array_equal(
        sample(volume, positions(volume.shape), interpolate=False), volume
    )


def test_intensities_are_interpolated_linearly():
    ramp = np.broadcast_to(np.arange(5.0), (2, 3, 5)).copy()
    at = np.array([0.0, 1.0, 2.5]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(sample(ramp, at, interpolate=True), 2.5)


@pytest.mark.parametrize("voxel_size", [(40, 4, 4), (8, 8, 8)])
def test_points_move_with_the_volume(voxel_size):
    rng = np.random.default_rng(3)
    shape = (12, 60, 80)
    jitter = [0 if v == 40 else 12 for v in voxel_size[:1]] + [15, 15]
    positions = deformed_positions(
        rng, shape, voxel_size=voxel_size, spacing_nm=(400, 400, 400), jitter_nm=jitter,
        angle=0.7, scale=(1, 1.08, 1.08),
    )
    inside = rng.uniform(0, np.subtract(shape, 1), (50, 3))
    sources = np.stack(
        [ndimage.map_coordinates(p, inside.T, order=1, output=float) for p in positions], axis=1
    )
    np.testing.assert_allclose(deformed_points(positions, sources, voxel_size), inside, atol=0.01)


def test_points_beyond_the_box_move_on_as_its_rim_does():
    positions = np.indices((5, 20, 20)).astype(np.float32) * 1.25 + 3
    points = np.array([[-4.5, 8, 60.0], [3, 3, -9.5]])
    np.testing.assert_allclose(
        deformed_points(positions, points, (40, 4, 4)), (points - 3) / 1.25, atol=1e-3
    )


def test_no_points_are_no_problem():
    assert deformed_points(np.zeros((3, 2, 2, 2)), np.empty((0, 3)), (1, 1, 1)).shape == (0, 3)
