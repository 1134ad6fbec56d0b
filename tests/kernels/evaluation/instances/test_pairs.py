"""Measures of pairs of objects: against masks of the whole volume, in any blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.evaluation.instances.pairs import (
    NO_PAIRS,
    extents,
    measure_pairs,
    merge_pairs,
)

SHAPE = (3, 4, 7)
LABELS = hnp.arrays(np.uint64, SHAPE, elements=st.sampled_from([0, 1, 2, 2**63 + 5]))
KNOWN = hnp.arrays(bool, SHAPE)
OFFSET = (5, 0, 11)


def measured(prediction, truth, known, offset=OFFSET):
    return measure_pairs(prediction=prediction, truth=truth, known=known, offset=offset)


def slow(prediction, truth, known):
    """Every combination, mask by mask."""
    found = {}
    for p in np.unique(prediction).tolist():
        for t in np.unique(truth).tolist():
            for k in (False, True):
                places = np.argwhere((prediction == p) & (truth == t) & (known == k)) + OFFSET
                if len(places):
                    found[t, p, k] = (len(places), places.sum(axis=0).tolist(),
                                      places.min(axis=0).tolist(), (places.max(axis=0) + 1).tolist())
    return found


def as_dict(pairs):
    keys = zip(pairs.truth.tolist(), pairs.prediction.tolist(), pairs.counts.tolist())
    values = zip(*(column.tolist() for column in pairs[3:]))
    return dict(zip(keys, values, strict=True))


@settings(max_examples=40)
@given(LABELS, LABELS, KNOWN)
def test_pairs_are_measured_as_mask_by_mask(prediction, truth, known):
    found = measured(prediction, truth, known)
    assert as_dict(found) == slow(prediction, truth, known)
    assert list(as_dict(found)) == sorted(as_dict(found))
    everywhere = measured(prediction, truth, None)
    assert as_dict(everywhere) == slow(prediction, truth, np.ones(SHAPE, bool))


@settings(max_examples=30)
@given(LABELS, LABELS, KNOWN, st.permutations(range(8)), st.integers(1, 2), st.integers(1, 3))
def test_any_parts_in_any_order_add_up(prediction, truth, known, order, z, y):
    boxes = [np.s_[a, b, c] for a in (slice(0, z), slice(z, None))
             for b in (slice(0, y), slice(y, None)) for c in (slice(0, 3), slice(3, None))]
    parts = [
        measured(prediction[box], truth[box], known[box],
                 tuple(o + s.start for o, s in zip(OFFSET, box)))
        for box in (boxes[n] for n in order)
    ]
    merged, whole = merge_pairs(parts), measured(prediction, truth, known)
    for ours, theirs in zip(merged, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_many_parts_are_merged_before_memory_grows(monkeypatch):
    monkeypatch.setattr("em_blocks.kernels.evaluation.instances.pairs._WAITING_ROWS", 3)
    labels = np.arange(1, 7, dtype=np.uint32).reshape(1, 1, 6)
    part = measured(labels, labels, None)
    found = merge_pairs([part] * 9)
    assert found.voxels.tolist() == [9] * 6 and found.truth.tolist() == [1, 2, 3, 4, 5, 6]


@settings(max_examples=30)
@given(LABELS, LABELS, KNOWN)
def test_the_table_is_that_of_the_voxels_that_count(prediction, truth, known):
    found = measured(prediction, truth, known).table()
    wanted = count_overlaps(segmentation=prediction[known], truth=truth[known])
    for name in ("segmentation", "truth", "voxels"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


@settings(max_examples=30)
@given(LABELS, LABELS, KNOWN)
def test_whole_objects_are_measured_on_either_side(prediction, truth, known):
    pairs = measured(prediction, truth, known)
    for side, labels in (("prediction", prediction), ("truth", truth)):
        found = extents(pairs, side)
        assert found.id.tolist() == np.unique(labels[labels > 0]).tolist()
        for n, id in enumerate(found.id):
            mine = labels == id
            assert found.voxels[n] == (mine & known).sum()
            assert found.ignored[n] == (mine & ~known).sum()
            places = np.argwhere(mine) + OFFSET
            assert found.begin[n].tolist() == places.min(axis=0).tolist()
            assert found.end[n].tolist() == (places.max(axis=0) + 1).tolist()
            if (mine & known).any():
                center = np.argwhere(mine & known).mean(axis=0) + OFFSET
                np.testing.assert_allclose(found.center[n], center)
            else:
                assert np.isnan(found.center[n]).all()
        np.testing.assert_array_equal(found.place(found.id), np.arange(len(found.id)))


def test_nothing_has_no_pairs():
    empty = np.zeros((0, 2, 2), np.uint8)
    assert measured(empty, empty, None) is NO_PAIRS and len(merge_pairs([]).voxels) == 0
    assert len(extents(NO_PAIRS, "truth").id) == 0


def test_arrays_of_other_shapes_are_refused():
    labels = np.zeros((1, 2, 2), np.uint8)
    with pytest.raises(ValueError, match="all are needed for the same voxels"):
        measured(labels, labels[:, :1], None)
    with pytest.raises(ValueError, match=r"known \(1, 1, 2\)"):
        measured(labels, labels, np.ones((1, 1, 2), bool))
