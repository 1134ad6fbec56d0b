"""Labels of other voxels than raw are read at the places of raw, nearest voxel by nearest voxel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.errors import GeometryError
from em_blocks.geometry import Box, Frame
from em_blocks.training.data.alignment import placement
from em_blocks.training.data.reading.placement import Placement
from em_blocks.training.data.reading.voxels import StoredVoxels

RAW = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))


def voxels(frame, shape=(8, 8, 8)):
    values = np.random.default_rng(3).integers(1, 99, shape).astype("u1")
    return values, StoredVoxels(
        lambda box: values[box.slices], path=str(frame.voxel_size), shape=shape,
        chunk_shape=(4, 4, 4), dtype="u1", frame=frame,
    )


def looked_up(values, frame, voxel):
    """The value at the centre of a voxel of raw; of an even number of finer ones, the latter."""
    centre = [o + (i + 0.5) * s for o, i, s in zip(RAW.offset, voxel, RAW.voxel_size, strict=True)]
    at = [
        int(np.floor((c - o) / s + 1e-6))
        for c, o, s in zip(centre, frame.offset, frame.voxel_size, strict=True)
    ]
    return values[tuple(at)]


@pytest.mark.parametrize(
    "frame",
    [
        Frame((40.0, 4.6, 4.6), (480.0, 36.8, 9.2)),
        Frame((40.0, 9.2, 13.8), (360.0, 41.4, 0.0)),  # coarser, beginning between two others
        Frame((20.0, 2.3, 4.6), (420.0, 43.7, 18.4)),  # finer in two axes
        Frame((80.0, 2.3, 4.6), (360.0, 46.0, 9.2)),  # coarser in one, finer in another
    ],
)
def test_every_voxel_of_raw_gets_the_nearest_label(frame):
    values, stored = voxels(frame)
    where = placement(voxels(RAW)[1], stored)
    box, read = where.covered(stored.shape), stored.placed(where)
    assert box.size
    expected = [looked_up(values, frame, np.add(v, box.offset)) for v in np.ndindex(*box.shape)]
    np.testing.assert_array_equal(read[box.slices].ravel(), expected)
    assert read.shape == box.end


def test_what_is_covered_lies_wholly_in_the_other_volume():
    coarse = Placement((1, 0, -2), coarser=(2, 1, 3))
    assert coarse.covered((2, 5, 2)) == Box.between((-1, 0, 2), (3, 5, 8))
    fine = Placement((1, 0, -1), finer=(2, 1, 3))
    assert fine.covered((8, 5, 8)) == Box.between((0, 0, 1), (3, 5, 3))
    assert coarse.pieces((4, 4, 4)) == (8, 4, 12) and fine.pieces((4, 4, 2)) == (2, 4, 1)


@given(
    first=st.tuples(*[st.integers(-5, 5)] * 3), ratio=st.tuples(*[st.sampled_from([1, 2, 3])] * 3),
    coarse=st.tuples(*[st.booleans()] * 3), cut=st.tuples(*[st.integers(0, 2)] * 3),
)
def test_a_part_is_read_as_it_is_in_the_whole(first, ratio, coarse, cut):
    where = Placement(
        first, tuple(r if c else 1 for r, c in zip(ratio, coarse, strict=True)),
        tuple(1 if c else r for r, c in zip(ratio, coarse, strict=True)),
    )
    values, stored = voxels(RAW, (12, 12, 12))
    whole = where.covered(values.shape)
    part = Box.between(np.add(whole.offset, cut), whole.end)
    if part.size:
        read = stored.placed(where)
        np.testing.assert_array_equal(
            read[part.slices], read[whole.slices][part.relative_to(whole).slices]
        )


@pytest.mark.parametrize("size", [(40.0, 4.6, 6.9), (40.0, 3.0, 4.6), (40.0, 4.61, 4.6)])
def test_a_ratio_that_is_not_whole_is_refused(size):
    with pytest.raises(GeometryError, match="only whole ratios"):
        placement(voxels(RAW)[1], voxels(Frame(size, RAW.offset))[1])


def test_coarser_labels_may_begin_between_two_of_their_voxels_but_not_of_raw():
    placement(voxels(RAW)[1], voxels(Frame((40.0, 9.2, 4.6), (400.0, 50.6, 9.2)))[1])
    with pytest.raises(GeometryError, match=r"0\.5"):
        placement(voxels(RAW)[1], voxels(Frame((40.0, 9.2, 4.6), (400.0, 48.3, 9.2)))[1])
