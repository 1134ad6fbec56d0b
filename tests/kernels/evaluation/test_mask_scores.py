"""Scores of masks: by hand, against whole arrays, and added up from parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from em_blocks.kernels.evaluation.mask_scores import Confusion, confusions, count_levels

SHAPE = (3, 4, 5)
LEVELS = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 3))
MASKS = hnp.arrays(bool, SHAPE)


def test_scores_by_hand():
    found = Confusion(tp=6, fp=2, fn=4, tn=88)
    assert found.scores() == {"dice": 12 / 18, "jaccard": 0.5, "precision": 0.75, "recall": 0.6}


@pytest.mark.parametrize(
    ("counts", "missing"),
    [((0, 0, 0, 9), {"dice", "jaccard", "precision", "recall"}), ((0, 2, 0, 9), {"recall"}),
     ((0, 0, 3, 9), {"precision"}), ((1, 0, 0, 9), set())],
)
def test_a_score_of_nothing_is_none(counts, missing):
    scores = Confusion(*counts).scores()
    assert {name for name, value in scores.items() if value is None} == missing


@given(LEVELS, MASKS, MASKS, MASKS)
def test_counts_are_those_of_whole_arrays(levels, truth, known, included):
    counts = count_levels(levels, truth, n_levels=4, known=known, included=included)
    assert counts.sum() == known.sum()
    for where, part in ((known & included, counts[:, :, 1]), (known & ~included, counts[:, :, 0])):
        for k, found in enumerate(confusions(part.sum(axis=0))):
            called = levels > k
            assert found == (
                (called & truth & where).sum(), (called & ~truth & where).sum(),
                (~called & truth & where).sum(), (~called & ~truth & where).sum(),
            )


@given(LEVELS, MASKS, st.integers(0, SHAPE[1]), st.integers(0, SHAPE[2]))
def test_counts_of_parts_add_up(levels, truth, y, x):
    whole = count_levels(levels, truth, n_levels=4)
    parts = sum(
        count_levels(levels[:, a][:, :, b], truth[:, a][:, :, b], n_levels=4)
        for a in (slice(0, y), slice(y, None)) for b in (slice(0, x), slice(x, None))
    )
    np.testing.assert_array_equal(parts, whole)
    assert whole[:, :, 0].sum() == 0 and whole.shape == (3, 4, 2, 2)


def test_every_section_is_counted_for_itself():
    levels = np.zeros((2, 1, 2), np.uint8)
    levels[1] = 1
    counts = count_levels(levels, np.array([[[1, 0]], [[1, 1]]], bool), n_levels=2)
    assert confusions(counts[0, :, 1]) == [(0, 0, 1, 1)]
    assert confusions(counts[1, :, 1]) == [(2, 0, 0, 0)]
