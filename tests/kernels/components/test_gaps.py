"""Gaps and what they touch, against whole arrays and cut into blocks."""

import numpy as np
import pytest
from scipy import ndimage

from em_blocks.geometry import BlockGrid, Box, Frame
from em_blocks.kernels.components.block_components import find_parts
from em_blocks.kernels.components.gaps import NOTHING, Touched, joined_touches, touched_by
from em_blocks.kernels.components.join_components import join_parts
from em_blocks.tasks.objects.steps import gap_tables

SHAPE = (7, 9, 11)


def touches_of(values):
    numbers = find_parts((values == 0).astype("uint8"), 6).numbers
    box = Box((0, 0, 0), values.shape)
    return touched_by(
        numbers, np.pad(values, 1), n_parts=numbers.max(), box=box, shape=values.shape
    )


def test_a_gap_touches_by_faces_only():
    values = np.ones((3, 3, 5), "uint64")
    values[1, 1, 1] = values[1, 1, 3] = 0  # two gaps, one voxel apart
    values[0, 0, 4] = 9  # touches the second by a corner only
    values[1, 1, 4] = 5
    found = touches_of(values)
    assert found.low.tolist() == [1, 1] and found.high.tolist() == [1, 5]
    assert found.outside.tolist() == [False, False]


@pytest.mark.parametrize("face", [(0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1), (1, 1, 0), (1, 1, 4)])
def test_a_gap_at_any_border_touches_the_outside(face):
    values = np.ones((3, 3, 5), "uint64")
    values[face] = 0
    assert touches_of(values).outside.tolist() == [True]


def test_background_alone_touches_no_object():
    found = touches_of(np.zeros((2, 2, 2), "uint8"))
    assert (found.low[0], found.high[0], found.outside[0]) == (NOTHING, 0, True)


@pytest.mark.parametrize("block_shape", [(3, 4, 5), (7, 9, 11), (2, 9, 3)])
@pytest.mark.parametrize("seed", range(4))
def test_joined_blocks_touch_what_the_whole_touches(block_shape, seed):
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(SHAPE) < 0.6, rng.integers(1, 4, SHAPE), 0).astype("uint64")
    tables, rows, first_row, n = [], {}, [], 0
    for block in BlockGrid(Frame((1, 1, 1)), SHAPE, block_shape).blocks():
        padded = np.pad(values, 1)
        box = block.write_box
        grown = padded[tuple(slice(b, e + 2) for b, e in zip(box.offset, box.end))]
        tables.append(gap_tables(grown, block, SHAPE))
        for part, voxel in zip(*tables[-1]["faces"].values()):
            rows[voxel] = n + part - 1
        first_row.append(n)
        n += len(tables[-1]["parts"]["id"])
    edges = [(first + part - 1, rows[voxel]) for first, table in zip(first_row, tables)
             for part, voxel in zip(*table["links"].values())]
    joined = {name: np.concatenate([t["parts"][name] for t in tables]) for name in tables[0]["parts"]}
    found = join_parts(joined["id"], joined["size"], joined["voxel"], np.array(edges).reshape(-1, 2))
    parts = Touched(joined["outside"] > 0, joined["low"], joined["high"])
    touched = joined_touches(parts, found.member, len(found.ids))
    numbers, n_gaps = ndimage.label(values == 0)
    assert len(found.ids) == n_gaps > 3
    cross = ndimage.generate_binary_structure(3, 1)
    for gap in range(1, n_gaps + 1):
        here = numbers == gap
        (part,) = np.flatnonzero(found.first == np.flatnonzero(here.ravel())[0])
        around = values[ndimage.binary_dilation(here, cross) & ~here]
        assert found.sizes[part] == here.sum()
        assert touched.low[part] == around.min() and touched.high[part] == around.max()
        inner = here[1:-1, 1:-1, 1:-1]
        assert touched.outside[part] == (inner.sum() < here.sum())
