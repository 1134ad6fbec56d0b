"""Scales and missing values, against numbers by hand."""

import numpy as np
import pytest

from em_blocks.errors import ConfigError
from em_blocks.evaluation.object_classes.scaling import scaled, without_missing

VALUES = np.array([[1.0, 7.0], [2.0, 7.0], [3.0, 7.0], [4.0, 7.0], [10.0, 7.0]])


@pytest.mark.parametrize(("scaling", "expected"), [
    # Mean 4, variance (9 + 4 + 1 + 0 + 36) / 5 = 10.
    ("standard", np.array([-3, -2, -1, 0, 6]) / np.sqrt(10)),
    # Median 3, quartiles 2 and 4.
    ("robust", [-1, -0.5, 0, 0.5, 3.5]),
    ("min_max", [0, 1 / 9, 2 / 9, 3 / 9, 1]),
])
def test_columns_are_scaled_and_constant_ones_are_zero(scaling, expected):
    found = scaled(VALUES, scaling, ["a", "b"])
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-12, atol=1e-12)
    assert (found[:, 1] == 0).all()


def test_logarithms_are_then_standard():
    found = scaled(np.array([[1.0], [10.0], [100.0]]), "log", ["a"])[:, 0]
    np.testing.assert_allclose(found, [-np.sqrt(1.5), 0, np.sqrt(1.5)], atol=1e-12)
    with pytest.raises(ConfigError, match="'b' has 2 values of 0 or less, the least -1"):
        scaled(np.array([[1.0, 0.0], [1.0, -1.0]]), "log", ["a", "b"])


def test_unscaled_columns_are_as_they_were():
    assert scaled(VALUES, "none", ["a", "b"]) is VALUES


def test_a_column_whose_middle_half_is_one_value_is_only_centred():
    found = scaled(np.array([[5.0]] * 9 + [[8.0]]), "robust", ["a"])[:, 0]
    assert found.tolist() == [0] * 9 + [3]


HOLES = np.array([[1.0, 2.0], [np.nan, 4.0], [5.0, np.inf], [7.0, 9.0]])
IDS = np.array([3, 5, 8, 9], np.uint64)


def test_missing_values_are_refused_with_their_numbers():
    with pytest.raises(ConfigError, match=r"2 of 4 objects .* the first is 5 \(a 1, b 1\)"):
        without_missing(HOLES, ["a", "b"], IDS, "refuse")


def test_objects_with_missing_values_are_dropped():
    values, kept = without_missing(HOLES, ["a", "b"], IDS, "drop")
    assert values.tolist() == [[1, 2], [7, 9]] and kept.tolist() == [True, False, False, True]
    with pytest.raises(ConfigError, match="leaves none"):
        without_missing(HOLES[1:3], ["a", "b"], IDS[1:3], "drop")


def test_missing_values_become_the_median_of_those_that_are_finite():
    values, kept = without_missing(HOLES, ["a", "b"], IDS, "median")
    assert values.tolist() == [[1, 2], [5, 4], [5, 4], [7, 9]] and kept.all()
    with pytest.raises(ConfigError, match="'a' has no finite value"):
        without_missing(np.array([[np.nan, 1.0]]), ["a", "b"], IDS[:1], "median")
