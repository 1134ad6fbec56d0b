"""What is written as JSON is JSON."""

import json
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.json_text import finite, json_text

NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


@given(NESTED)
def test_any_value_becomes_strict_json_and_only_nan_and_infinity_are_lost(value):
    assert json.loads(json_text(value), parse_constant=refuse) == finite(value)


def test_nan_and_infinity_become_null_wherever_they_are():
    value = {"a": [1.5, math.nan, {"b": -math.inf}], "c": np.float64("nan"), "d": (1, 2)}
    assert json.loads(json_text(value)) == {"a": [1.5, None, {"b": None}], "c": None, "d": [1, 2]}
