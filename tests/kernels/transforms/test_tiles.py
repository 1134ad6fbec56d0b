"""Tiles and blending."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.transforms.tiles import blend_window, tile_offsets

size = st.integers(1, 9)
sizes = st.tuples(size, size, size)
begins = st.tuples(*[st.integers(-20, 20)] * 3)


@given(begins, sizes, sizes)
def test_tiles_cover_a_box_and_each_of_them_touches_it(begin, shape, tile):
    end = tuple(b + s for b, s in zip(begin, shape, strict=True))
    offsets = tile_offsets(begin, end, tile)
    covered = {
        (z, y, x)
        for o in offsets
        for z in range(o[0], o[0] + tile[0])
        for y in range(o[1], o[1] + tile[1])
        for x in range(o[2], o[2] + tile[2])
    }
    inside = set(np.ndindex(*shape))
    inside = {tuple(i + b for i, b in zip(v, begin, strict=True)) for v in inside}
    assert inside <= covered
    for offset in offsets:
        assert all(o % t == 0 for o, t in zip(offset, tile, strict=True))
        assert all(o < e and o + t > b for o, t, b, e in zip(offset, tile, begin, end, strict=True))


@given(begins, sizes, sizes)
def test_the_tiles_of_a_box_are_those_of_its_parts(begin, shape, tile):
    end = tuple(b + s for b, s in zip(begin, shape, strict=True))
    middle = (begin[0] + shape[0] // 2, *end[1:])
    parts = set()
    for b, e in ((begin, middle), ((middle[0], *begin[1:]), end)):
        if b[0] < e[0]:
            parts |= set(tile_offsets(b, e, tile))
    assert parts == set(tile_offsets(begin, end, tile))


@given(st.tuples(*[st.integers(2, 12)] * 3), st.data())
def test_overlapping_windows_add_up_to_one(tile, data):
    overlap = tuple(data.draw(st.integers(0, t // 2)) for t in tile)
    window = blend_window(tile, overlap)
    assert window.min() > 0
    stride = [t - o for t, o in zip(tile, overlap, strict=True)]
    total = np.zeros([3 * t for t in tile], np.float64)
    for k in np.ndindex(3, 3, 3):
        at = tuple(slice(i * s, i * s + t) for i, s, t in zip(k, stride, tile, strict=True))
        total[at] += window
    inner = tuple(slice(s, s + t) for s, t in zip(stride, tile, strict=True))
    np.testing.assert_allclose(total[inner], 1, atol=1e-5)
