"""Numbers of ids: as numpy.unique, for any ids and any size of the table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.components.numbering import number_ids

IDS = st.lists(st.one_of(st.integers(1, 5), st.integers(1, 2**63 - 1)), max_size=60)


def assert_as_unique(ids):
    expected, member = np.unique(ids, return_inverse=True)
    found, numbers = number_ids(ids)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(numbers, member)
    assert found.dtype == numbers.dtype == np.int64


@given(IDS)
def test_ids_are_numbered_in_their_order(ids):
    assert_as_unique(np.array(ids, np.int64))


@pytest.mark.parametrize("n", [511, 512, 513, 1024, 5000])
def test_a_table_grows_with_its_ids(n):
    """512 ids fill half of the first table, which the next one replaces."""
    ids = np.random.default_rng(n).permutation(np.arange(1, n + 1)) * 2**40
    assert_as_unique(np.concatenate([ids, ids[::-3]]))
