"""A volume read at the voxels of another one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.geometry import Box, Frame
from em_blocks.volumes.nearest import read_nearest
from preparing import FRAME, volume

MASK = np.random.default_rng(0).integers(1, 200, (5, 6, 7)).astype("uint16")


def slow(mask, frame, box):
    """One voxel after the other: the value where its centre lies."""
    values = np.zeros(box.shape, mask.dtype)
    held = mask.read(mask.box)
    for index in np.ndindex(box.shape):
        centre = [(o + i + 0.5) * v + begin for o, i, v, begin in
                  zip(box.offset, index, frame.voxel_size, frame.offset)]
        place = tuple(int(np.floor((c - o) / v + 1e-9)) for c, o, v in
                      zip(centre, mask.offset, mask.voxel_size))
        if all(0 <= p < n for p, n in zip(place, held.shape)):
            values[index] = held[place]
    return values


@pytest.fixture(scope="module")
def mask(tmp_path_factory):
    return volume(tmp_path_factory.mktemp("nearest"), MASK, "mask")


def test_of_the_same_frame_it_is_what_is_stored_and_0_beyond(mask):
    found = read_nearest(mask, FRAME, Box((-1, 2, 3), (7, 2, 9)))
    expected = np.zeros((7, 2, 9), "uint16")
    expected[1:6, :, :4] = MASK[:, 2:4, 3:]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("factors", [(1, 2, 2), (2, 3, 4)])
def test_coarse_voxels_are_those_of_all_fine_ones_in_them(mask, factors):
    fine = Frame(np.divide(FRAME.voxel_size, factors), FRAME.offset)
    box = Box((0, 0, 0), np.multiply(MASK.shape, factors))
    expected = MASK
    for axis, factor in enumerate(factors):
        expected = expected.repeat(factor, axis)
    np.testing.assert_array_equal(read_nearest(mask, fine, box), expected)


@given(
    st.tuples(*[st.sampled_from([2.3, 4.6, 9.2, 20.0, 40.0, 55.0])] * 3),
    st.tuples(*[st.integers(-30, 60)] * 3), st.tuples(*[st.integers(1, 5)] * 3),
)
def test_any_voxel_has_the_value_where_its_centre_lies(mask, size, corner, shape):
    frame, box = Frame(size, (397.3, 41.1, -13.7)), Box(corner, shape)
    np.testing.assert_array_equal(read_nearest(mask, frame, box), slow(mask, frame, box))
