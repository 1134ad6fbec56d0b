"""What a sample of raw data holds."""

import numpy as np
import pytest

from em_blocks.kernels.transforms.intensities import describe


def test_nan_and_infinity_are_counted_and_found_where_they_are():
    values = np.random.default_rng(0).random((4, 5, 6)).astype("float32")
    values[1, 2, 3] = values[3, 0, 0] = np.nan
    values[2, 4, 5] = -np.inf
    found = describe(values)
    assert (found.nan, found.infinite, found.size) == (2, 1, 120)
    assert found.first_nan == (1, 2, 3) and found.first_infinite == (2, 4, 5)
    finite = values[np.isfinite(values)]
    assert (found.low, found.high) == (finite.min(), finite.max())
    assert not found.constant


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "float32"])
def test_an_array_of_one_value_is_constant(dtype):
    assert describe(np.full((2, 3, 4), 7, dtype)).constant
    values = np.full((2, 3, 4), 7, dtype)
    values[1, 2, 3] = 8
    assert not describe(values).constant


def test_one_value_beside_nan_is_not_constant_but_bad():
    values = np.full((2, 3, 4), 7, "float32")
    values[0, 0, 0] = np.nan
    assert not describe(values).constant and describe(values).nan == 1


def test_nothing_but_nan_has_no_lowest_value():
    found = describe(np.full((2, 2, 2), np.nan, "float32"))
    assert found.low is None and found.high is None and found.clipped == 0


def test_voxels_at_the_end_of_the_dtype_are_clipped_those_at_others_are_not():
    values = np.full((2, 5, 10), 100, "uint8")
    values[0] = 255
    values[1, 0] = 0
    assert describe(values).clipped == 50
    values[0] = 254
    assert describe(values).clipped == 10


def test_floats_are_clipped_where_many_have_the_highest_value():
    values = np.linspace(0, 1, 100, dtype="float32").reshape(4, 5, 5)
    assert describe(values).clipped == 1
    assert describe(np.minimum(values, np.float32(0.5))).clipped == 50
