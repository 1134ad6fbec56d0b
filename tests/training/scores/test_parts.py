"""Parts of a validation box."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from em_blocks.training.data.sources import TrainingData
from em_blocks.training.scores.parts import part_shape, parts_of

SHAPE = (9, 30, 40)


@pytest.mark.parametrize(
    ("tile", "most", "wanted"),
    [
        ((8, 64, 64), 2**21, (128, 128, 128)),
        ((1, 100, 60), 6000, (1, 100, 60)),
        ((1, 100, 60), 12_000, (2, 100, 60)),
        ((4, 5, 6), 10, (4, 5, 6)),  # a tile is the least there is
    ],
)
def test_a_part_is_of_whole_tiles_and_as_much_like_a_cube_as_fits(tile, most, wanted):
    assert part_shape(tile, most) == wanted


triples = st.tuples(*(st.integers(0, n - 1) for n in SHAPE))


@settings(max_examples=60, deadline=None)
@given(triples, triples, st.tuples(*(st.integers(3, n) for n in SHAPE)))
def test_parts_cover_the_box_once_and_end_at_multiples_of_their_shape(one, two, shape):
    begin = tuple(map(min, one, two))
    end = tuple(max(a, b) + 1 for a, b in zip(one, two, strict=True))
    seen = np.zeros(SHAPE, int)
    data = TrainingData("box", np.zeros(SHAPE, np.uint8), {}, begin, end, 1.0)
    for part in parts_of(data, shape):
        assert part.name == "box" and all(b < e for b, e in zip(part.begin, part.end, strict=True))
        assert all(b % n == 0 or b == first
                   for b, n, first in zip(part.begin, shape, begin, strict=True))
        seen[part.box] += 1
    assert (seen[data.box] == 1).all() and seen.sum() == seen[data.box].size
