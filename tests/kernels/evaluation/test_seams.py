"""A segmentation at a seam beside one without it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.evaluation.seams import (
    compare,
    disagreement,
    ratio,
    ratio_difference,
    renamed_like,
)


def slabs(*widths, shape=(4, 6)):
    """Objects 1, 2, ... side by side along x, so many voxels wide."""
    row = np.repeat(np.arange(1, len(widths) + 1), widths)
    return np.broadcast_to(row, (*shape, len(row))).copy()


def split_at(labels, axis, plane):
    """The same, with objects of their own behind the plane."""
    labels = labels.copy()
    behind = labels[(slice(None),) * axis + (slice(plane, None),)]
    behind[behind > 0] += 1000
    return labels


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_object_that_the_seam_cuts_is_split(axis):
    whole = np.moveaxis(slabs(3, 5), 0, axis)  # both objects cross every plane across this axis
    found = compare(split_at(whole, axis, 2), whole, axis=axis, plane=2)
    assert found.pairs == found.joined == found.split == whole.size // whole.shape[axis]
    assert found.merged == found.apart == 0
    assert found.voi.split > 0 and found.voi.merge == 0


def test_objects_that_become_one_across_the_seam_are_merged():
    whole = slabs(4, 4)
    stored = np.ones_like(whole)
    found = compare(stored, whole, axis=2, plane=4)
    assert (found.pairs, found.joined, found.split, found.merged) == (24, 0, 0, 24)
    assert found.voi.merge == pytest.approx(1) and found.voi.split == 0


def test_the_same_objects_under_other_names_agree():
    whole = slabs(2, 3, 4)
    found = compare(whole * 7 + 2**40, whole, axis=2, plane=5)
    assert found.split == found.merged == 0 and found.apart == 24
    assert found.voi == pytest.approx((0, 0), abs=1e-9)


def test_parts_that_are_joined_outside_of_the_box_are_two():
    whole = slabs(2, 3, 2)
    stored = whole.copy()
    stored[stored == 3] = 1  # a bend whose middle lies elsewhere
    found = compare(stored, whole, axis=2, plane=5)
    assert found.split == found.merged == 0 and found.voi == pytest.approx((0, 0), abs=1e-9)


def test_pairs_with_background_in_either_do_not_count():
    whole, stored = slabs(4, 4), slabs(4, 4)
    whole[0, :, 3], stored[1, :, 4] = 0, 0
    found = compare(stored, whole, axis=2, plane=4)
    assert found.pairs == found.apart == 2 * 6


@pytest.mark.parametrize("plane", [0, 8])
def test_a_plane_outside_of_the_box_is_refused(plane):
    with pytest.raises(ValueError, match="no plane"):
        compare(slabs(8), slabs(8), axis=2, plane=plane)


def slow_counts(stored, whole, axis, plane):
    """Counted one by one, of labels whose objects are connected."""
    counts = dict.fromkeys(("pairs", "joined", "split", "merged"), 0)
    stored, whole = np.moveaxis(stored, axis, 0), np.moveaxis(whole, axis, 0)
    for at in np.ndindex(stored.shape[1:]):
        a, b, c, d = (labels[z][at] for labels in (stored, whole) for z in (plane - 1, plane))
        if min(a, b, c, d) > 0:
            counts["pairs"] += 1
            counts["joined"] += c == d
            counts["split"] += c == d and a != b
            counts["merged"] += c != d and a == b
    return counts


@given(seed=st.integers(0, 999), axis=st.integers(0, 2))
def test_counts_equal_those_made_one_by_one(seed, axis):
    rng = np.random.default_rng(seed)
    # Voxels of one id that touch are connected, and only those are asked about.
    stored, whole = rng.integers(0, 4, (2, 4, 5, 6))
    found = compare(stored, whole, axis=axis, plane=2)
    assert slow_counts(stored, whole, axis, 2) == {
        name: getattr(found, name) for name in ("pairs", "joined", "split", "merged")
    }
    wrong = disagreement(stored, whole, axis=axis, plane=2)
    assert wrong.sum() == found.split + found.merged
    assert list(wrong.shape) == np.delete(stored.shape, axis).tolist()


def test_objects_take_the_names_of_those_they_share_most_with():
    like = slabs(4, 4) * 10
    labels = slabs(1, 4, 3)
    named = renamed_like(labels, like)
    assert [int(named[0, 0, x]) for x in (1, 5)] == [10, 20]
    assert named[0, 0, 0] not in (0, 10, 20)
    labels[0] = 0
    assert not renamed_like(labels, like)[0].any()


def test_a_rate_has_the_error_between_windows():
    rng = np.random.default_rng(3)
    errors, values = [], []
    for _ in range(400):  # windows with a rate and a size of their own
        totals = rng.integers(50, 150, 40)
        found = ratio(rng.binomial(totals, rng.beta(2, 8, 40)), totals)
        values.append(found.value)
        errors.append(found.error)
    assert np.mean(values) == pytest.approx(0.2, abs=0.01)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)


def test_what_pairs_of_windows_share_does_not_blur_their_difference():
    tissue = np.random.default_rng(4).integers(0, 50, 30).astype(float)
    hundred = np.full(30, 100)
    found = ratio_difference(tissue + 2, hundred, tissue, hundred)
    assert found.value == pytest.approx(0.02) and found.error == pytest.approx(0, abs=1e-12)
    assert ratio(tissue + 2, hundred).error > 0.01


def test_one_window_has_no_error_and_no_pairs_no_rate():
    assert ratio([1], [4]).value == 0.25 and math.isnan(ratio([1], [4]).error)
    assert math.isnan(ratio([0, 0], [0, 0]).value)
