"""Thresholds in stored values: exact, as comparing probabilities one by one is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.transforms.thresholds import levels_reached, stored_thresholds

THRESHOLDS = st.lists(st.floats(0.001, 1), min_size=1, max_size=5, unique=True).map(sorted)


@given(THRESHOLDS, st.sampled_from([("uint8", 255.0), ("uint8", 100.0), ("uint16", 1000.0)]))
def test_a_stored_integer_reaches_what_its_probability_reaches(thresholds, kind):
    dtype, scale = kind
    values = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    stored = stored_thresholds(thresholds, dtype=dtype, scale=scale)
    expected = sum((values / scale >= t).astype(int) for t in thresholds)
    np.testing.assert_array_equal(levels_reached(values, stored), expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_stored_float_reaches_the_threshold_that_it_was_made_of(dtype):
    values = np.array([[0.0, 0.3, 0.7], [0.6999, 0.7001, 1.0]], dtype)
    stored = stored_thresholds([0.3, 0.7], dtype=dtype, scale=1.0)
    np.testing.assert_array_equal(levels_reached(values, stored), [[0, 1, 2], [1, 2, 2]])


def test_the_half_of_eight_bits_is_128():
    assert stored_thresholds([0.5, 1.0], dtype="uint8", scale=255).tolist() == [128, 255]
    # 7 / 100 is 0.07, although 0.07 * 100 is more than 7.
    assert stored_thresholds([0.07, 1.0], dtype="uint8", scale=300).tolist() == [21, 256]
    assert stored_thresholds([0.07], dtype="uint8", scale=100).tolist() == [7]


def test_ids_are_no_probabilities():
    with pytest.raises(ValueError, match="uint8, uint16 or floats, got uint32"):
        stored_thresholds([0.5], dtype="uint32", scale=1)
