"""Boxes of voxels, ROIs in nm, frames between them, block grids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.errors import GeometryError
from em_blocks.geometry import Block, BlockGrid, Box, Frame, Roi

ANISOTROPIC = Frame((50, 4.6, 4.6), (100, 46, -92))

coordinates = st.integers(-50, 50)
sizes = st.integers(0, 40)
boxes = st.builds(Box, st.tuples(*[coordinates] * 3), st.tuples(*[sizes] * 3))
filled_boxes = st.builds(Box, st.tuples(*[coordinates] * 3), st.tuples(*[st.integers(1, 40)] * 3))
voxel_sizes = st.sampled_from([4.0, 4.6, 8.0, 33.333, 40.0, 50.0])


def voxels_of(box):
    """The voxels of a box as a set, the slow way."""
    return {tuple(v) for v in np.argwhere(np.ones(box.shape, bool)) + box.offset}


def test_a_box_ends_where_offset_plus_shape_says():
    box = Box((1, 2, 3), (10, 20, 30))
    assert box.end == (11, 22, 33)
    assert box.size == 6000
    assert box.slices == (slice(1, 11), slice(2, 22), slice(3, 33))


def test_boxes_need_three_axes_and_no_negative_shape():
    with pytest.raises(GeometryError, match="three values"):
        Box((0, 0), (1, 1))
    with pytest.raises(GeometryError, match="negative"):
        Box((0, 0, 0), (1, -1, 1))


@given(
    st.builds(Box, st.tuples(*[st.integers(-4, 4)] * 3), st.tuples(*[st.integers(0, 5)] * 3)),
    st.builds(Box, st.tuples(*[st.integers(-4, 4)] * 3), st.tuples(*[st.integers(0, 5)] * 3)),
)
def test_the_intersection_holds_exactly_the_common_voxels(a, b):
    assert voxels_of(a.intersect(b)) == voxels_of(a) & voxels_of(b)


@given(filled_boxes, boxes)
def test_a_box_contains_another_if_the_intersection_changes_nothing(a, b):
    assert a.contains(a.intersect(b)) or a.intersect(b).size == 0


@given(boxes, st.tuples(*[st.integers(0, 9)] * 3))
def test_growing_adds_context_on_both_sides(box, context):
    grown = box.grow(context)
    assert grown.offset == tuple(o - c for o, c in zip(box.offset, context, strict=True))
    assert grown.end == tuple(e + c for e, c in zip(box.end, context, strict=True))


@given(boxes, boxes)
def test_relative_to_undoes_shift(box, other):
    assert box.relative_to(other).shift(other.offset) == box


@given(
    st.tuples(*[voxel_sizes] * 3),
    st.tuples(*[st.floats(-1e7, 1e7, allow_nan=False)] * 3),
    st.builds(Box, st.tuples(*[st.integers(-(10**7), 10**7)] * 3), st.tuples(*[sizes] * 3)),
)
def test_a_box_survives_the_way_to_nm_and_back(voxel_size, offset, box):
    frame = Frame(voxel_size, offset)
    assert frame.to_box(frame.to_roi(box)) == box


def test_a_roi_far_from_the_origin_converts_exactly():
    frame = Frame((50, 4.6, 4.6), (1e7, 1e7, 1e7))
    roi = Roi((1e7 + 50 * 123_456, 1e7 + 4.6 * 2_173_913, 1e7), (50 * 64, 4.6 * 512, 4.6 * 512))
    assert frame.to_box(roi) == Box((123_456, 2_173_913, 0), (64, 512, 512))


def test_a_roi_off_the_voxel_grid_is_refused_with_the_nearest_one():
    with pytest.raises(GeometryError) as caught:
        ANISOTROPIC.to_box(Roi((150, 48, -92), (100, 9.2, 9.2)))
    assert "use offset (150.0, 46.0, -92.0) and shape (100.0, 9.2, 9.2)" in str(caught.value)
    assert ANISOTROPIC.to_box(Roi((150, 46, -92), (100, 9.2, 9.2))) == Box((1, 0, 0), (2, 2, 2))


shifts = st.floats(0.01, 0.99) | st.just(0.0)


@given(st.tuples(*[voxel_sizes] * 3), filled_boxes, st.tuples(*[shifts] * 3))
def test_the_enclosing_box_is_the_smallest_that_covers(voxel_size, box, shift):
    frame = Frame(voxel_size, (7.0, -9.2, 1000.0))
    exact = frame.to_roi(box)
    moved = [o + s * v for o, s, v in zip(exact.offset, shift, voxel_size, strict=True)]
    cover = frame.enclosing_box(Roi(moved, exact.shape))
    assert cover.offset == box.offset
    assert cover.shape == tuple(n + (s > 0) for n, s in zip(box.shape, shift, strict=True))


def test_a_voxel_size_must_be_positive_and_finite():
    for bad in [(0, 4, 4), (-40, 4, 4), (40, 4, float("nan")), (40, 4, float("inf"))]:
        with pytest.raises(GeometryError, match="positive nm"):
            Frame(bad)


@given(st.tuples(*[st.integers(1, 30)] * 3), st.tuples(*[st.integers(1, 12)] * 3))
def test_blocks_cover_each_voxel_of_the_volume_once(volume_shape, block_shape):
    grid = BlockGrid(ANISOTROPIC, volume_shape, block_shape)
    covered = np.zeros(volume_shape, int)
    for block in grid.blocks():
        covered[block.write_box.slices] += 1
    assert (covered == 1).all()


def test_blocks_are_indexed_densely_and_cut_at_the_end():
    grid = BlockGrid(ANISOTROPIC, (20, 33, 40), (16, 16, 16))
    blocks = list(grid.blocks())
    assert grid.shape == (2, 3, 3)
    assert grid.n_blocks == len(blocks) == 18
    assert blocks[-1] == Block((1, 2, 2), Box((16, 32, 32), (4, 1, 8)))
    assert blocks[-1].key == "1/2/2"
    assert grid.block((1, 2, 2)) == blocks[-1]


def test_a_block_that_does_not_exist_is_an_error():
    grid = BlockGrid(ANISOTROPIC, (20, 33, 40), (16, 16, 16))
    for index in [(2, 0, 0), (-1, 0, 0), (0, 3, 0)]:
        with pytest.raises(GeometryError, match="there is no block"):
            grid.block(index)
