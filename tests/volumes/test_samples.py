"""Chunks that stand for a volume."""

import math

from hypothesis import given
from hypothesis import strategies as st

from em_blocks.geometry import Box
from em_blocks.volumes.samples import MOST_CHUNKS, sample_boxes

shapes = st.tuples(*[st.integers(1, 40)] * 3)


@given(shapes, shapes)
def test_a_sample_is_whole_chunks_the_first_and_the_last_among_them(shape, chunk_shape):
    boxes = sample_boxes(shape, chunk_shape)
    n = math.prod(-(-s // c) for s, c in zip(shape, chunk_shape))
    assert len(boxes) == min(n, MOST_CHUNKS) == len(set(boxes))
    assert boxes[0].offset == (0, 0, 0) and boxes[-1].end == shape
    for box in boxes:
        assert all(o % c == 0 for o, c in zip(box.offset, chunk_shape))
        assert box == Box(box.offset, chunk_shape).intersect(Box((0, 0, 0), shape))
    if n <= MOST_CHUNKS:
        assert sum(box.size for box in boxes) == math.prod(shape)
