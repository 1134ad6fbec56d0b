"""Which blocks read which."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from em_blocks.geometry import BlockGrid, Frame
from em_blocks.volumes.touching import touching


def slow(grid, context, other, blocks):
    """Every pair of blocks, compared in nm."""
    found = np.zeros(grid.shape, bool)
    for block in grid.blocks():
        read = grid.frame.to_roi(block.write_box.grow(context))
        for place in map(tuple, np.argwhere(blocks)):
            there = other.frame.to_roi(other.block(place).write_box)
            found[block.index] |= all(
                b < e - 1e-6 and ob < oe - 1e-6
                for b, e, ob, oe in zip(read.offset, there.end, there.offset, read.end, strict=True)
            )
    return found


sizes = st.tuples(*[st.integers(1, 9)] * 3)


@settings(max_examples=150, deadline=None)
@given(
    shape=sizes, block=sizes, other_shape=sizes, other_block=sizes,
    shift=st.tuples(*[st.integers(-6, 6)] * 3), context=st.tuples(*[st.integers(0, 4)] * 3),
    factors=st.tuples(*[st.sampled_from([1, 2, 3])] * 3), seed=st.integers(0, 99),
)
def test_blocks_touch_as_a_comparison_of_all_pairs_says(
    shape, block, other_shape, other_block, shift, context, factors, seed
):
    size = np.array([40.0, 4.6, 5.24])
    grid = BlockGrid(Frame(size, (80, 9.2, -10.48)), shape, block)
    offset = np.array([80, 9.2, -10.48]) + size * shift
    other = BlockGrid(Frame(size * factors, offset), other_shape, other_block)
    blocks = np.random.default_rng(seed).random(other.shape) < 0.3
    assert np.array_equal(
        touching(grid, context, other, blocks), slow(grid, context, other, blocks)
    )


def test_a_block_that_only_shares_a_face_is_not_read():
    grid = BlockGrid(Frame((8, 8, 8), (0, 0, 0)), (4, 4, 8), (4, 4, 4))
    marked = np.zeros((1, 1, 2), bool)
    marked[0, 0, 1] = True
    assert touching(grid, (0, 0, 0), grid, marked).tolist() == [[[False, True]]]
    assert touching(grid, (0, 0, 1), grid, marked).tolist() == [[[True, True]]]
