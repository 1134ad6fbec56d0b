"""Levels of a pyramid: towards isotropic voxels, down to one chunk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.transforms.pyramid import next_factors, pyramid_factors

sizes = st.tuples(*[st.floats(1, 100)] * 3)
shapes = st.tuples(*[st.integers(1, 10**6)] * 3)


@pytest.mark.parametrize(
    ("voxel_size", "expected"),
    [
        ((40, 4, 4), [(1, 2, 2)] * 3 + [(2, 2, 2)] * 2),
        ((8, 8, 8), [(2, 2, 2)] * 5),
        ((50, 4.6, 4.6), [(1, 2, 2)] * 3 + [(2, 2, 2)] * 2),
        ((19, 10, 10), [(1, 2, 2)] + [(2, 2, 2)] * 4),
        ((10, 13, 13), [(2, 2, 2)] * 5),
        ((4, 4, 30), [(2, 2, 1)] * 3 + [(2, 2, 2)] * 2),
    ],
)
def test_voxels_become_isotropic_first(voxel_size, expected):
    assert pyramid_factors(voxel_size, (4096,) * 3, levels=5, smallest=(64,) * 3) == expected


def test_it_ends_with_one_chunk():
    factors = pyramid_factors((40, 4, 4), (256, 512, 512), levels=None, smallest=(64, 64, 64))
    assert factors == [(1, 2, 2)] * 3 + [(2, 2, 2)] * 2
    assert pyramid_factors((40, 4, 4), (64, 64, 64), levels=None, smallest=(64,) * 3) == []


def test_a_single_section_is_never_halved_in_depth():
    assert next_factors((8, 8, 8), (1, 100, 100)) == (1, 2, 2)
    assert next_factors((4, 8, 16), (1, 100, 100)) == (1, 2, 1)


def test_nothing_is_left_of_a_single_voxel():
    assert pyramid_factors((8, 8, 8), (1, 1, 1), levels=3, smallest=(64,) * 3) == []


@given(size=sizes, shape=shapes)
def test_every_level_is_smaller_and_no_less_isotropic(size, shape):
    for factors in pyramid_factors(size, shape, levels=None, smallest=(64,) * 3):
        before = max(size) / min(size)
        assert set(factors) <= {1, 2} and max(factors) == 2
        size = tuple(v * f for v, f in zip(size, factors, strict=True))
        if min(shape) > 1:
            assert max(size) / min(size) <= before * (1 + 1e-9)
        shape = tuple(-(-n // f) for n, f in zip(shape, factors, strict=True))
    assert max(shape) <= 64
