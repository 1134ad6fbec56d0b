"""Grey values of 8 bits, from values of any range."""

import numpy as np
import pytest

from em_blocks.kernels.images.grey_values import to_grey


def test_values_of_8_bits_in_their_whole_range_stay_what_they_are():
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_grey(values, 0, 255), values)


def test_of_16_bits_the_upper_8_are_left():
    values = np.array([0, 255, 256, 511, 512, 65279, 65280, 65535], np.uint16)
    assert to_grey(values, 0, 65535).tolist() == [0, 0, 1, 1, 2, 254, 255, 255]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_what_lies_beyond_the_range_becomes_its_ends(dtype):
    values = np.array([0, 50, 51, 120, 200], dtype)
    found = to_grey(values, 51, 120).tolist()
    assert found[:3] == [0, 0, 0] and found[3] in (252, 255) and found[4] == 255


def test_negative_integers_have_a_place():
    values = np.array([-1000, -500, 0, 499, 32767], np.int16)
    assert to_grey(values, -1000, 999).tolist() == [0, 64, 128, 191, 255]


def test_floats_are_cut_into_256_bins_and_what_is_no_number_is_0():
    values = np.array([0, 0.9 / 256, 1 / 256, 0.5, 1, np.nan, np.inf, -np.inf], np.float32)
    assert to_grey(values, 0.0, 1.0).tolist() == [0, 0, 1, 128, 255, 0, 255, 0]
