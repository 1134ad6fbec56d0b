"""Zones at surfaces: as morphology has them, and voxel by voxel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from em_blocks.kernels.images.exclusion_zone import zone_in_nm, zone_in_voxels

shapes = st.tuples(*[st.integers(1, 7)] * 3)
labels = shapes.flatmap(lambda s: arrays(np.uint16, s, elements=st.sampled_from([0, 0, 3, 3, 9])))
ways = st.integers(0, 3)


def slow_zone(ids, outwards, inwards, distance, contacts):
    """One voxel after the other: is there one of the other kind within the distance?"""
    zone, voxels = np.zeros(ids.shape, bool), np.argwhere(np.ones(ids.shape, bool))
    for voxel in voxels:
        own = ids[tuple(voxel)]
        others = ids.ravel() if contacts else (ids.ravel() > 0).astype(int)
        own_kind = own if contacts else int(own > 0)
        other = others != own_kind if own > 0 else ids.ravel() > 0
        near = distance(voxels[other] - voxel) <= (inwards if own > 0 else outwards)
        zone[tuple(voxel)] = near.any()
    return zone


@given(labels, ways, ways, st.booleans())
def test_in_voxels_it_is_steps_through_faces_that_count(ids, outwards, inwards, contacts):
    expected = slow_zone(ids, outwards, inwards, lambda way: np.abs(way).sum(1), contacts)
    found = zone_in_voxels(ids, outwards=outwards, inwards=inwards, contacts=contacts)
    np.testing.assert_array_equal(found, expected)


@given(labels, st.floats(0, 20), st.floats(0, 20), st.booleans())
def test_in_nm_it_is_the_distance_of_centres_that_counts(ids, outwards, inwards, contacts):
    size = (7.5, 4.0, 4.6)

    def distance(way):
        return np.sqrt(((way * size) ** 2).sum(1)) * (1 - 1e-4)

    expected = slow_zone(ids, outwards, inwards, distance, contacts)
    found = zone_in_nm(ids, outwards=outwards, inwards=inwards, voxel_size=size, contacts=contacts)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("ways", [(4, 4), (2, 1), (0, 3), (3, 0)])
def test_it_is_dilated_and_not_eroded(ways):
    """As in morphology with 6 neighbours, of a volume that goes on as it ends."""
    noise = np.random.default_rng(0).random((20, 30, 40))
    objects = ndimage.gaussian_filter(noise, 2) > 0.5
    outwards, inwards = ways
    dilated = ndimage.binary_dilation(objects, iterations=outwards) if outwards else objects
    eroded = ndimage.binary_erosion(objects, iterations=inwards, border_value=1) if inwards else objects
    found = zone_in_voxels(objects.astype("uint8"), outwards=outwards, inwards=inwards)
    np.testing.assert_array_equal(found, dilated & ~eroded)
    assert 0.1 < found.mean() < 0.95


def test_where_objects_touch_is_a_surface_only_if_asked_for():
    ids = np.zeros((1, 1, 12), np.uint64)
    ids[..., 2:6], ids[..., 6:10] = 5, 2**63
    plain = zone_in_voxels(ids, outwards=1, inwards=1)
    both = zone_in_voxels(ids, outwards=1, inwards=1, contacts=True)
    assert np.flatnonzero(plain).tolist() == [1, 2, 9, 10]
    assert np.flatnonzero(both).tolist() == [1, 2, 5, 6, 9, 10]
    options = {"voxel_size": (40, 4, 4.6), "outwards": 4.6, "inwards": 4.6}
    np.testing.assert_array_equal(zone_in_nm(ids, **options), plain)
    np.testing.assert_array_equal(zone_in_nm(ids, **options, contacts=True), both)


@pytest.mark.parametrize("value", [0, 1])
def test_a_volume_of_one_kind_has_no_surface(value):
    ids = np.full((3, 4, 5), value, "uint8")
    assert not zone_in_voxels(ids, outwards=9, inwards=9, contacts=True).any()
    assert not zone_in_nm(ids, outwards=99, inwards=99, voxel_size=(1, 1, 1)).any()
