"""Measures of objects: by hand, and from any parts those of the whole."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from em_blocks.kernels.components.object_measures import measure_objects, merge_measures

SHAPE = (4, 5, 6)
LABELS = hnp.arrays(np.uint64, SHAPE, elements=st.sampled_from([0, 3, 2**40, 7]))


def test_an_object_by_hand():
    labels = np.zeros((2, 3, 4), "uint16")
    labels[1, 1:3, 2] = 300
    found = measure_objects(labels, (10, 20, 30))
    assert found.id.tolist() == [300] and found.voxels.tolist() == [2]
    assert found.sums.tolist() == [[22, 43, 64]]
    assert (found.begin.tolist(), found.end.tolist()) == ([[11, 21, 32]], [[12, 23, 33]])


def test_nothing_has_no_measures():
    found = measure_objects(np.zeros(SHAPE, "uint64"), (1, 2, 3))
    assert [len(column) for column in found] == [0] * 5
    assert found.sums.shape == (0, 3)


def test_a_block_without_background():
    found = measure_objects(np.full((1, 2, 2), 5), (0, 0, 0))
    assert found.id.tolist() == [5] and found.voxels.tolist() == [4]


@given(LABELS, st.integers(1, 3), st.integers(1, 5))
def test_parts_make_the_whole(labels, z, x):
    parts = [
        measure_objects(labels[:z, :, :x], (0, 0, 0)), measure_objects(labels[z:, :, x:], (z, 0, x)),
        measure_objects(labels[:z, :, x:], (0, 0, x)), measure_objects(labels[z:, :, :x], (z, 0, 0)),
    ]
    whole = measure_objects(labels, (0, 0, 0))
    for ours, theirs in zip(merge_measures(parts), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for n, id in enumerate(np.unique(labels[labels > 0])):
        places = np.argwhere(labels == id)
        assert whole.id[n] == id and whole.voxels[n] == len(places)
        np.testing.assert_array_equal(whole.sums[n], places.sum(axis=0))
        np.testing.assert_array_equal(whole.begin[n], places.min(axis=0))
        np.testing.assert_array_equal(whole.end[n], places.max(axis=0) + 1)
