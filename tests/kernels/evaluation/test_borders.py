"""Voxels near borders, against the definition of the CREMI challenge, and in parts of a volume."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from em_blocks.kernels.evaluation.borders import border_context, near_borders

COARSE = hnp.arrays(np.uint64, (2, 3, 4), elements=st.sampled_from([0, 1, 2**64 - 1]))
VOXEL_SIZE = (40.0, 4.6, 4.6)


def labels_of(coarse):
    return coarse.repeat(3, 1).repeat(4, 2)


def slow(labels, distance_nm, voxel_size):
    """Voxel by voxel: is a voxel with a different neighbour in the section near enough?"""
    found = np.zeros(labels.shape, bool)
    for z, section in enumerate(labels):
        padded = np.pad(section, 1, mode="edge")
        borders = [
            (y, x) for y, x in np.ndindex(section.shape)
            if any(padded[y + 1 + dy, x + 1 + dx] != section[y, x]
                   for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)))
        ]
        for y, x in np.ndindex(section.shape):
            found[z, y, x] = any(
                math.hypot((y - b) * voxel_size[1], (x - c) * voxel_size[2]) <= distance_nm + 1e-9
                for b, c in borders
            )
    return found


@given(COARSE, st.sampled_from([0.001, 4.6, 5.0, 9.2, 13.8, 23.0, 60.0]), st.booleans())
def test_near_borders_is_the_slow_definition(coarse, distance_nm, longer):
    size = (40.0, 4.6, 9.2) if longer else VOXEL_SIZE
    labels = labels_of(coarse)
    found = near_borders(labels, distance_nm=distance_nm, voxel_size=size)
    np.testing.assert_array_equal(found, slow(labels, distance_nm, size))


@given(COARSE, st.sampled_from([0.001, 4.6, 9.2, 15.0]))
def test_a_part_with_its_context_is_the_part_of_the_whole(coarse, distance_nm):
    labels = labels_of(coarse)
    whole = near_borders(labels, distance_nm=distance_nm, voxel_size=VOXEL_SIZE)
    x = border_context(distance_nm, VOXEL_SIZE)[2]
    for begin in range(0, labels.shape[2], 5):
        read = slice(max(0, begin - x), begin + 5 + x)
        part = near_borders(labels[:, :, read], distance_nm=distance_nm, voxel_size=VOXEL_SIZE)
        inner = part[:, :, begin - read.start:][:, :, :5]
        np.testing.assert_array_equal(inner, whole[:, :, begin:begin + 5])


def test_distances_are_included_whatever_rounding_says():
    """Three and four pixels of 4.6 nm are five: 23 nm."""
    labels = np.ones((1, 9, 9), np.uint8)
    labels[0, 0, 0] = 2
    near = near_borders(labels, distance_nm=23.0, voxel_size=VOXEL_SIZE)
    assert near[0, 3, 5] and near[0, 5, 3] and near[0, 4, 4]
    assert not near[0, 5, 5]
    assert not near_borders(labels, distance_nm=22.9, voxel_size=VOXEL_SIZE)[0, 3, 5]


@pytest.mark.parametrize("distance_nm", [1.0, 1000.0])
def test_a_section_of_one_neuron_has_no_border_and_sections_know_nothing_of_each_other(distance_nm):
    labels = np.arange(1, 4)[:, None, None] * np.ones((3, 4, 5), int)
    assert not near_borders(labels, distance_nm=distance_nm, voxel_size=VOXEL_SIZE).any()
