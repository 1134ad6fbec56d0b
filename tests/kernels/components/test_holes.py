"""Holes that are filled, and gaps that are none."""

import numpy as np
import pytest
from scipy import ndimage

from em_blocks.kernels.components.holes import fill_holes


def test_a_hole_touches_one_object_and_no_border():
    labels = np.zeros((5, 7, 12), np.uint64)
    labels[1:4, 1:6, 1:6] = 3
    labels[2, 2:5, 2:4] = 0  # a hole of 6
    labels[1:4, 1:6, 6:11] = 2**40
    labels[2, 3, 5:8] = 0  # between two objects
    labels[2, 3, 10:] = 0  # open to the border
    filled = fill_holes(labels)
    assert (filled[2, 2:5, 2:4] == 3).all()
    assert (filled != labels).sum() == 6
    np.testing.assert_array_equal(fill_holes(labels, max_hole=6), filled)
    np.testing.assert_array_equal(fill_holes(labels, max_hole=5), labels)


@pytest.mark.parametrize("seed", range(3))
def test_one_object_is_filled_as_scipy_fills_it(seed):
    mask = ndimage.gaussian_filter(np.random.default_rng(seed).random((12, 25, 30)), 1.2) > 0.5
    filled = fill_holes(mask.astype(np.uint64))
    np.testing.assert_array_equal(filled > 0, ndimage.binary_fill_holes(mask))
