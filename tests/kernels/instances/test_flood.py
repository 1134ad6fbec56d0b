"""Floods: equal to a slow reference, and in a box that cuts components what is told is right."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from em_blocks.geometry import Box
from em_blocks.kernels.instances.decode import first_labels, instances
from em_blocks.kernels.instances.flood import CLOSED, UNDECIDED, flood
from flooding import slow_flood, slow_instances


def row(landscape, labels, **options):
    """Flood a volume of one row; -1 is undecided, before and after."""
    labels = np.array(labels, np.int64).reshape(1, 1, -1)
    values = np.array(landscape, np.uint8).reshape(labels.shape)
    found = flooded(values, np.where(labels < 0, UNDECIDED, labels), **options).ravel()
    return np.where(found == UNDECIDED, -1, found.astype(int)).tolist()


def flooded(landscape, labels, **options):
    found = labels.astype(np.uint32)
    flood(landscape, found, **options)
    return found


def test_floods_meet_at_the_pass():
    assert row([255, 200, 90, 80, 200, 200, 255], [5, -1, -1, -1, -1, -1, 3]) == [5, 5, 5, 3, 3, 3, 3]


def test_floods_meet_in_the_middle_of_a_plateau():
    assert row([255] + [99] * 6 + [255], [5, *[-1] * 6, 3]) == [5, 5, 5, 5, 3, 3, 3, 3]


def test_what_is_as_near_to_two_seeds_gets_the_smaller_label():
    assert row([255] + [99] * 5 + [255], [5, *[-1] * 5, 3]) == [5, 5, 5, 3, 3, 3, 3]


def test_steps_count_from_where_the_level_was_reached():
    """The way from the left is longer, but reached the level of the middle as late."""
    assert row([255, 150, 150, 150, 90, 90, 90, 255], [5, *[-1] * 6, 3])[4:7] == [5, 3, 3]


def test_a_seed_that_does_not_count_is_flooded_first():
    assert row([255, 255, 255, 1, 255], [7, -1, -1, -1, 0]) == [7, 7, 7, 7, 0]


def test_what_no_seed_reaches_stays_undecided():
    assert row([9, 9, 0, 255], [-1, -1, 0, 4]) == [-1, -1, 0, 4]


def test_behind_an_open_side_there_may_be_a_seed():
    labels, cut = [4, -1, -1, -1, -1, -1], [*CLOSED[:2], (False, True)]
    assert row([255, 90, 90, 90, 90, 90], labels) == [4] * 6
    assert row([255, 90, 90, 90, 90, 90], labels, open_sides=cut) == [4, 4, 4, -1, -1, -1]
    # What would have to cross a pass keeps away.
    assert row([255, 90, 90, 90, 20, 90], labels, open_sides=cut) == [4, 4, 4, 4, -1, -1]


@st.composite
def volumes(draw):
    """Landscapes of few or many levels, with seeds."""
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([1, 3, 254]))
    landscape = rng.integers(1, levels + 1, shape) * (254 // levels)
    landscape[rng.random(shape) < draw(st.sampled_from([0.0, 0.2]))] = 0
    labels = np.where(landscape > 0, -1, 0)
    seeds = (rng.random(shape) < draw(st.sampled_from([0.03, 0.2]))) & (landscape > 0)
    labels[seeds] = rng.integers(1, 9, seeds.sum())
    return np.where(seeds, 255, landscape).astype(np.uint8), labels


@settings(max_examples=150, deadline=None)
@given(volumes())
def test_a_flood_is_that_of_the_slow_reference(volume):
    landscape, labels = volume
    found = flooded(landscape, np.where(labels < 0, UNDECIDED, labels))
    np.testing.assert_array_equal(np.where(found == UNDECIDED, 0, found), slow_flood(landscape, labels))


@settings(max_examples=150, deadline=None)
@given(volumes(), st.data())
def test_a_box_tells_no_label_that_the_whole_volume_does_not(volume, data):
    landscape, labels = volume
    begin = [data.draw(st.integers(0, n - 1)) for n in labels.shape]
    end = [data.draw(st.integers(b + 1, n)) for b, n in zip(begin, labels.shape, strict=True)]
    slices = Box.between(begin, end).slices
    labels = np.where(labels < 0, UNDECIDED, labels)
    whole = flooded(landscape, labels)[slices]
    sides = [(b > 0, e < n) for b, e, n in zip(begin, end, labels.shape, strict=True)]
    part = flooded(landscape[slices], labels[slices], open_sides=sides)
    told = part != UNDECIDED
    np.testing.assert_array_equal(part[told], whole[told])
    np.testing.assert_array_equal(told[labels[slices] != UNDECIDED], True)


def test_margins_of_some_voxels_tell_nearly_everything():
    """Where seeds are near everywhere, which is what makes blocks worth while."""
    rng = np.random.default_rng(0)
    landscape = rng.integers(1, 255, (24, 24, 24)).astype(np.uint8)
    labels = np.full(landscape.shape, UNDECIDED, np.uint32)
    labels[::4, ::4, ::4] = np.arange(1, 217).reshape(6, 6, 6)
    part = flooded(landscape, labels, open_sides=[(True, True)] * 3)[8:16, 8:16, 8:16]
    assert (part == UNDECIDED).mean() < 0.01


@pytest.mark.parametrize("seed", range(4))
def test_instances_are_those_of_the_slow_reference(seed):
    rng = np.random.default_rng(seed)
    values = rng.random((9, 14, 17))
    for axis in range(3):
        values = values + np.roll(values, 1, axis) + np.roll(values, 2, axis)
    ranks = values.argsort(axis=None).argsort().reshape(values.shape) / values.size
    landscape = np.where(ranks > 0.7, (ranks * 254).astype(int), 0)
    landscape = np.where(ranks > 0.9, 255, landscape).astype(np.uint8)
    options = {"min_seed_size": 4, "min_size": 20}
    found = instances(landscape, **options)
    np.testing.assert_array_equal(found, slow_instances(landscape, **options))
    assert found.max() > 1 and (first_labels(landscape, **options) == UNDECIDED).any()
