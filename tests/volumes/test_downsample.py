"""tensorstore's downsampling is exact: ties, ragged ends, 64-bit values, any corner."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from em_blocks.volumes.downsample import downsample

INTEGERS = ("uint8", "int16", "uint32", "int64", "uint64")
METHODS = ("mode", "mean")
factors = st.tuples(*[st.integers(1, 3)] * 3)
corners = st.tuples(*[st.integers(0, 5)] * 3)


@st.composite
def volumes(draw):
    """Integers of any dtype: few values, so that there are ties, at both ends of the dtype."""
    dtype = np.dtype(draw(st.sampled_from(INTEGERS)))
    first = draw(st.sampled_from([np.iinfo(dtype).min, 0, np.iinfo(dtype).max - 3]))
    shape = draw(st.tuples(*[st.integers(1, 7)] * 3))
    return draw(arrays(dtype, shape, elements=st.integers(first, first + 3)))


def windows(shape, factors, corner):
    """Index of every window, and the voxels in it."""
    first = [c // f for c, f in zip(corner, factors, strict=True)]
    last = [-(-(c + n) // f) for c, n, f in zip(corner, shape, factors, strict=True)]
    for index in np.ndindex(*(b - a for a, b in zip(first, last, strict=True))):
        begin = [(a + i) * f - c for a, i, f, c in zip(first, index, factors, corner, strict=True)]
        yield index, tuple(
            slice(max(0, b), b + f) for b, f in zip(begin, factors, strict=True)
        )


def mode(values):
    return min(set(values), key=lambda v: (-values.count(v), v))


def mean(values):
    return round(Fraction(sum(values), len(values)))  # Python rounds halves to even


@pytest.mark.parametrize(("method", "slow"), [("mode", mode), ("mean", mean)])
@given(values=volumes(), factors=factors, corner=corners)
def test_it_agrees_with_a_slow_reference(method, slow, values, factors, corner):
    result = downsample(values, factors, method, corner=corner)
    assert result.dtype == values.dtype
    expected = {index: slow(values[window].ravel().tolist())
                for index, window in windows(values.shape, factors, corner)}
    assert {index: int(result[index]) for index in np.ndindex(result.shape)} == expected


@given(values=volumes(), factors=factors, cut=st.integers(1, 2), method=st.sampled_from(METHODS))
def test_windows_that_are_not_cut_do_not_depend_on_the_piece(values, factors, cut, method):
    whole = downsample(values, factors, method)
    begin = cut * factors[0]
    piece = values[begin:]
    if piece.size:
        np.testing.assert_array_equal(
            downsample(piece, factors, method, corner=(begin, 0, 0)), whole[cut:]
        )


@given(values=volumes(), factors=factors)
def test_the_mode_is_one_of_the_values(values, factors):
    assert np.isin(downsample(values, factors, "mode"), values).all()


def test_channels_are_kept_apart():
    values = np.random.default_rng(0).integers(0, 255, (3, 5, 6, 7), dtype=np.uint8)
    result = downsample(values, (1, 2, 2), "mean")
    assert result.shape == (3, 5, 3, 4)
    for channel, one in zip(result, values, strict=True):
        np.testing.assert_array_equal(channel, downsample(one, (1, 2, 2), "mean"))
