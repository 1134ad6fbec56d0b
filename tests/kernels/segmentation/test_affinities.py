"""Affinities against one comparison per voxel."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from em_blocks.kernels.segmentation.affinities import affinities, erode_labels

SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5)
LABELS = SHAPES.flatmap(lambda shape: hnp.arrays(np.uint64, shape, elements=st.integers(0, 3)))
SHIFTS = st.lists(st.tuples(*[st.integers(-7, 7)] * 3), min_size=1, max_size=4)


def slow(labels, neighborhood, known):
    values = np.zeros((len(neighborhood), *labels.shape), int)
    mask = np.zeros_like(values)
    for c, shift in enumerate(neighborhood):
        for here in itertools.product(*map(range, labels.shape)):
            there = tuple(h + s for h, s in zip(here, shift, strict=True))
            if all(0 <= t < n for t, n in zip(there, labels.shape, strict=True)):
                values[c][here] = labels[here] == labels[there] != 0
                mask[c][here] = known[here] and known[there]
    return values, mask


@given(LABELS, SHIFTS, st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_affinities_are_those_of_the_slow_reference(labels, neighborhood, seed):
    known = np.random.default_rng(seed).random(labels.shape) < 0.8
    made = affinities(labels, neighborhood, known=known)
    values, mask = slow(labels, neighborhood, known)
    np.testing.assert_array_equal(made.values, values)
    np.testing.assert_array_equal(made.mask, mask)


@given(LABELS, st.tuples(*[st.integers(-7, 7)] * 3))
@settings(deadline=None)
def test_a_shift_and_its_opposite_see_the_same_pairs(labels, shift):
    made = affinities(labels, [shift, tuple(-s for s in shift)])
    assert made.values[0].sum() == made.values[1].sum()
    assert made.mask[0].sum() == made.mask[1].sum()


def test_labels_above_32_bits_are_told_apart():
    labels = np.array([[[2**40, 2**40 + 2**33]]], np.uint64)
    assert affinities(labels, [(0, 0, 1)]).values[0, 0, 0, 0] == 0


@pytest.mark.parametrize(
    ("labels", "neighborhood", "known"),
    [
        (np.zeros((2, 2), int), [(0, 0, 1)], None),
        (np.zeros((2, 2, 2), int), [(0, 1)], None),
        (np.zeros((2, 2, 2), int), [(0, 0, 1)], np.ones((2, 2, 1), bool)),
    ],
)
def test_arrays_of_another_shape_are_refused(labels, neighborhood, known):
    with pytest.raises(ValueError, match="shape"):
        affinities(labels, neighborhood, known=known)


def test_erosion_removes_the_rim_of_touching_labels_only():
    labels = np.repeat(np.array([[[1, 1, 1, 2, 2, 2]]]), 2, axis=1)
    np.testing.assert_array_equal(
        erode_labels(labels, (0, 1, 1)), np.repeat(np.array([[[1, 1, 0, 0, 2, 2]]]), 2, axis=1)
    )
    np.testing.assert_array_equal(erode_labels(labels, (1, 1, 0)), labels)


@given(LABELS, st.tuples(*[st.integers(0, 3)] * 3))
@settings(max_examples=60, deadline=None)
def test_erosion_is_what_a_look_at_every_neighbour_says(labels, voxels):
    expected = labels.copy()
    for here in itertools.product(*map(range, labels.shape)):
        for axis, step in itertools.product(range(3), range(-3, 4)):
            there = list(here)
            there[axis] += step
            inside = 0 <= there[axis] < labels.shape[axis]
            if inside and abs(step) <= voxels[axis] and labels[tuple(there)] != labels[here]:
                expected[here] = 0
    np.testing.assert_array_equal(erode_labels(labels, voxels), expected)
