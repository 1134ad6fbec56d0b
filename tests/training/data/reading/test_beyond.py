"""Voxels beyond a volume are its mirror image; beyond a region of labels nothing is known."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.geometry import Box
from em_blocks.training.data.reading.beyond import read_mirrored, read_within

CORNER = st.tuples(*[st.integers(-9, 9)] * 3)
SIZE = st.tuples(*[st.integers(1, 6)] * 3)


@given(offset=CORNER, shape=SIZE, size=SIZE)
def test_a_box_is_cut_from_the_endlessly_mirrored_volume(offset, shape, size):
    values = np.arange(np.prod(size)).reshape(size)
    endless = np.pad(values, 20, mode="reflect")
    box = Box(offset, shape)
    np.testing.assert_array_equal(
        read_mirrored(values, box), endless[box.shift((20, 20, 20)).slices]
    )


@given(offset=CORNER, shape=SIZE, begin=st.integers(0, 3), end=st.integers(3, 6))
def test_outside_of_the_region_is_zero_even_where_the_volume_goes_on(offset, shape, begin, end):
    values = 1 + np.arange(7 * 8 * 9).reshape(7, 8, 9)
    region, box = Box.between((begin, 1, 2), (end, 7, 8)), Box(offset, shape)
    expected = np.zeros_like(values)
    expected[region.slices] = values[region.slices]
    expected = np.pad(expected, 20)[box.shift((20, 20, 20)).slices]
    np.testing.assert_array_equal(read_within(values, region, box), expected)
