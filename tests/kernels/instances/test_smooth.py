"""Smoothing in whole numbers: that of scipy, and the same in every box."""

import numpy as np
import pytest
from scipy import ndimage

from em_blocks.kernels.instances.smooth import PART, may_reach, reach, smooth

VALUES = np.random.default_rng(3).integers(0, 256, (21, 24, 35)).astype(np.uint8)


@pytest.mark.parametrize("sigma", [(0.6, 1.0, 1.7), (0.0, 1.0, 1.0), (2.0, 0.0, 0.0), (0.0, 0.0, 0.5)])
def test_a_gaussian_is_that_of_scipy_rounded(sigma):
    inside = tuple(slice(r, n - r) for r, n in zip(reach(sigma), VALUES.shape, strict=True))
    want = ndimage.gaussian_filter(VALUES.astype(float), sigma)[inside]
    found = smooth(VALUES, sigma)
    assert found.shape == want.shape
    assert np.abs(found - want).max() < 0.52


def test_no_value_depends_on_the_box():
    sigma = (0.6, 1.0, 1.7)
    whole = smooth(VALUES, sigma)
    np.testing.assert_array_equal(smooth(VALUES[3:, 5:20, 2:], sigma), whole[3:, 5:12, 2:])


def test_a_constant_stays_what_it_is_to_the_largest_value():
    for value in (0, 1, 254, 255):
        assert (smooth(np.full((9, 20, 20), value, np.uint8), (0.5, 2, 2)) == value).all()


def test_no_sigma_is_no_change():
    assert smooth(VALUES, (0, 0, 0)) is VALUES
    assert reach((0, 0.1, 1)) == (0, 0, 4)


def test_what_is_smaller_than_the_reach_or_no_bytes_is_refused():
    with pytest.raises(ValueError, match="not more than twice the reach"):
        smooth(VALUES[:, :8], (0, 1, 0))
    with pytest.raises(ValueError, match="as uint8, got float32"):
        smooth(VALUES.astype("float32"), (0, 1, 0))


@pytest.mark.parametrize("sigma", [(0.6, 1.0, 1.7), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.6, 0.0, 0.0),
                                   (0.0, 0.0, 0.0)])
def test_what_may_reach_a_level_is_smoothed_as_ever(sigma):
    values = np.random.default_rng(5).integers(0, 100, (12, 40, 300)).astype(np.uint8)
    values[5:8, 20:25, 100:110] = 255
    every, needed = smooth(values, sigma), may_reach(values, sigma, 128)
    found = smooth(values, sigma, needed)
    inside = needed.repeat(PART, axis=2)[:, :, : every.shape[2]]
    assert 0 < inside.sum() < 0.8 * inside.size
    assert (found[inside] == every[inside]).all() and every[~inside].max() < 128
    assert every.max() >= 128 and (every[inside] >= 128).sum() == (every >= 128).sum()
