"""The shape calculator against networks that really run."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from em_blocks.errors import GeometryError
from em_blocks.nets.shapes import UNetShapes
from em_blocks.nets.unet import Head, UNet

KERNELS = st.tuples(*[st.sampled_from([1, 3])] * 3)
POOLS = st.tuples(*[st.integers(1, 3)] * 3)


@st.composite
def geometries(draw):
    levels = draw(st.integers(1, 3))
    kernels = draw(
        st.lists(st.lists(KERNELS, min_size=1, max_size=2), min_size=levels, max_size=levels)
    )
    pooling = draw(st.lists(POOLS, min_size=levels - 1, max_size=levels - 1))
    return kernels, pooling


@given(geometries(), st.tuples(*[st.integers(1, 2)] * 3))
@settings(max_examples=40, deadline=None)
def test_the_network_returns_exactly_the_shape_that_was_calculated(geometry, factors):
    kernels, pooling = geometry
    shapes = UNetShapes(kernels, pooling)
    output = tuple(n * factor for n, factor in zip(factors, shapes.tile_factor, strict=True))
    network = UNet(
        features=[1] * len(kernels),
        kernels=kernels,
        pooling=pooling,
        heads={"a": Head(2, "sigmoid")},
    )
    with torch.inference_mode():
        result = network(torch.zeros(1, 1, *shapes.input_shape(output)))["a"]
    assert tuple(result.shape) == (1, 2, *output)


@given(geometries(), st.tuples(*[st.integers(-3, 60)] * 3))
@settings(max_examples=200, deadline=None)
def test_an_input_is_accepted_exactly_if_it_is_a_tile_plus_context(geometry, size):
    shapes = UNetShapes(*geometry)
    output = [s - 2 * c for s, c in zip(size, shapes.context, strict=True)]
    legal = all(o > 0 and o % f == 0 for o, f in zip(output, shapes.tile_factor, strict=True))
    if legal:
        assert shapes.input_shape(shapes.output_shape(size)) == size
    else:
        with pytest.raises(GeometryError):
            shapes.output_shape(size)


def test_an_illegal_tile_is_explained_with_the_nearest_legal_ones():
    shapes = UNetShapes([[(3, 3, 3)] * 2] * 3, [(2, 2, 2)] * 2)
    with pytest.raises(
        GeometryError, match=r"\(50, 64, 3\).*\(4, 4, 4\).*\(48, 64, 4\) or \(52, 64, 4\)"
    ):
        shapes.check_output((50, 64, 3))


def test_an_illegal_input_is_explained_with_the_nearest_legal_ones():
    shapes = UNetShapes([[(1, 3, 3)] * 2, [(3, 3, 3)] * 2], [(1, 2, 2)])
    with pytest.raises(
        GeometryError, match=r"Nearest legal inputs: \(8, 24, 24\) or \(8, 26, 24\)"
    ):
        shapes.output_shape((8, 25, 24))


def test_kernels_that_need_more_context_on_one_side_are_refused():
    with pytest.raises(GeometryError, match="odd"):
        UNetShapes([[(3, 2, 3)]], [])


def test_as_many_poolings_as_steps_between_levels_are_needed():
    with pytest.raises(GeometryError, match="2 levels"):
        UNetShapes([[(3, 3, 3)], [(3, 3, 3)]], [])


def test_a_pooling_below_one_is_refused():
    with pytest.raises(GeometryError, match="at least 1"):
        UNetShapes([[(3, 3, 3)], [(3, 3, 3)]], [(0, 2, 2)])
