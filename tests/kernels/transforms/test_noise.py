"""Noise that belongs to places: the same in every box, and noise after all."""

import numpy as np
import pytest

from em_blocks.kernels.transforms.noise import smooth_noise, smooth_noise_in, white_noise_in

BEGIN, SHAPE, VOXEL_SIZE = (-5, 1000, 3), (20, 60, 70), (30.0, 4.6, 8.0)
CUT = (slice(3, 9), slice(11, 40), slice(0, 33))


def smooth(begin, shape, seed=1):
    return smooth_noise_in(begin, shape, seed=seed, voxel_size=VOXEL_SIZE, scale_nm=90.0)


def white(begin, shape, seed=1):
    return white_noise_in(begin, shape, seed=seed)


@pytest.mark.parametrize("noise", [smooth, white])
def test_a_voxel_has_the_same_value_in_every_box_that_holds_it(noise):
    whole = noise(BEGIN, SHAPE)
    inner = noise(tuple(b + c.start for b, c in zip(BEGIN, CUT, strict=True)),
                  tuple(c.stop - c.start for c in CUT))
    np.testing.assert_array_equal(inner, whole[CUT])


@pytest.mark.parametrize("noise", [smooth, white])
def test_another_seed_and_another_place_give_other_noise(noise):
    one = noise(BEGIN, SHAPE).ravel()
    for other in (noise(BEGIN, SHAPE, seed=2), noise((995, 0, 0), SHAPE), noise(BEGIN[::-1], SHAPE)):
        assert abs(np.corrcoef(one, other.ravel())[0, 1]) < 0.3


def test_white_noise_is_nearly_gaussian_and_no_voxel_knows_its_neighbour():
    values = white((0, 0, 0), (50, 100, 100)).astype(float)
    assert abs(values.mean()) < 0.01 and abs(values.std() - 1) < 0.01
    assert np.abs(values).max() <= 3.4642
    assert abs((values < -1).mean() - 0.159) < 0.01
    for axis in range(3):
        ahead, behind = np.delete(values, 0, axis), np.delete(values, -1, axis)
        assert abs(np.corrcoef(ahead.ravel(), behind.ravel())[0, 1]) < 0.01


def test_smooth_noise_has_unit_variance_and_changes_on_its_scale():
    values = smooth((0, 0, 0), (60, 400, 200)).astype(float)
    assert abs(values.std() - 1) < 0.15
    for axis, step in enumerate(VOXEL_SIZE):
        near, far = (_alike(values, axis, round(nm / step)) for nm in (30, 360))
        assert near > 0.85 and abs(far) < 0.25


def _alike(values, axis, shift):
    values = np.moveaxis(values, axis, 0)
    return np.corrcoef(values[shift:].ravel(), values[:-shift].ravel())[0, 1]


def test_noise_of_a_generator_is_what_it_was():
    values = smooth_noise(np.random.default_rng(5), (2, 3, 3), (40, 4, 4), 90.0)
    np.testing.assert_allclose(values[0, 0], [-0.03597581, -0.05041284, -0.07217504], atol=1e-8)
    np.testing.assert_allclose(values[1, 2], [-0.13563283, -0.19192346, -0.25571089], atol=1e-8)
    assert values.sum() == pytest.approx(-2.2324081747113524, abs=1e-12)
