"""Distances to surfaces and contours, against slow references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from em_blocks.kernels.instances.contours import contours
from em_blocks.kernels.instances.signed_distance import distance_reach, surface_distance

SIZE = (50.0, 9.2, 4.6)


def slow_distance(ids, largest, size=SIZE):
    """From every voxel to all others."""
    places = np.argwhere(np.ones(ids.shape, bool))
    result = []
    for at, own in zip(places, ids.ravel(), strict=True):
        others = places[(ids.ravel() != own) if own else (ids.ravel() > 0)]
        ways = np.linalg.norm((others - at) * size, axis=1)
        result.append(min([*ways, largest]) * (1 if own else -1))
    return np.reshape(result, ids.shape)


def some_ids(seed, shape=(3, 6, 7)):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, shape).astype(np.uint32) * 1000


@pytest.mark.parametrize("largest", [20.0, 70.0])
def test_distances_are_those_between_centres_of_voxels(largest):
    for seed in range(3):
        ids = some_ids(seed)
        nm, certain = surface_distance(ids, np.ones(ids.shape, bool), voxel_size=SIZE, largest=largest)
        np.testing.assert_allclose(nm, slow_distance(ids, largest), rtol=1e-5)
        assert certain.all() and nm.dtype == np.float32


def test_sections_are_measured_for_themselves_if_asked():
    ids = some_ids(5)
    nm, _ = surface_distance(
        ids, np.ones(ids.shape, bool), voxel_size=SIZE, largest=200.0, sections=True
    )
    for z in range(3):
        np.testing.assert_allclose(nm[z], slow_distance(ids[z : z + 1], 200.0)[0], rtol=1e-5)


def test_instances_that_touch_have_a_surface_and_the_end_of_the_array_is_none():
    ids = np.array([[[4, 4, 4, 9, 9]]], np.uint64)
    nm, _ = surface_distance(ids, ids > 0, voxel_size=(1.0, 1.0, 2.0), largest=100.0)
    assert nm.ravel().tolist() == [6, 4, 2, 2, 4]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([12.0, 30.0, 60.0]))
def test_a_certain_distance_does_not_depend_on_what_unknown_voxels_are(seed, largest):
    ids = some_ids(seed)
    known = np.random.default_rng(seed).random(ids.shape) < 0.85
    options = {"voxel_size": SIZE, "largest": largest}
    nm, certain = surface_distance(ids, known, **options)
    assert not certain[~known].any()
    for other in (np.zeros_like(ids), np.full_like(ids, 7), ids):
        filled = np.where(known, ids, other)
        truth = slow_distance(filled, largest)
        np.testing.assert_allclose(nm[certain], truth[certain], rtol=1e-5)


def test_most_is_certain_far_from_what_is_unknown():
    ids = np.zeros((1, 40, 40), np.uint8)
    ids[0, 10:30, 10:30] = 1
    known = np.ones(ids.shape, bool)
    known[0, :, 38:] = False
    _, certain = surface_distance(ids, known, voxel_size=(50.0, 10.0, 10.0), largest=50.0)
    # 50 nm before the unknown columns nothing is certain but what is nearer to the instance.
    assert certain[0, :, :33].all() and not certain[0, :5, 33:].any()
    assert certain[0, 20, 33] and not certain[0, 20, 34]


def test_a_block_with_its_reach_has_the_distances_of_the_whole_volume():
    rng = np.random.default_rng(2)
    ids = np.repeat(np.repeat(rng.integers(0, 4, (5, 8, 9)), 4, axis=1), 4, axis=2).astype(np.uint16)
    known = np.ones(ids.shape, bool)
    known[2, 7:11, 20:30] = False
    whole = surface_distance(ids, known, voxel_size=SIZE, largest=55.0)
    reach = distance_reach(55.0, SIZE)
    assert reach == (2, 6, 12) and distance_reach(55.0, SIZE, sections=True) == (0, 6, 12)
    box = (slice(1, 3), slice(9, 17), slice(13, 22))
    around = tuple(
        slice(max(0, s.start - r), min(n, s.stop + r))
        for s, r, n in zip(box, reach, ids.shape, strict=True)
    )
    inner = tuple(slice(s.start - a.start, s.stop - a.start) for s, a in zip(box, around, strict=True))
    found = surface_distance(ids[around], known[around], voxel_size=SIZE, largest=55.0)
    np.testing.assert_allclose(found.nm[inner], whole.nm[box], rtol=1e-5)
    np.testing.assert_array_equal(found.certain[inner], whole.certain[box])


# -- contours -------------------------------------------------------------------------------


@pytest.mark.parametrize("inwards", [4.6, 9.2, 20.0])
@pytest.mark.parametrize("outwards", [0.0, 9.2])
def test_contours_are_the_voxels_within_their_widths(inwards, outwards):
    ids = some_ids(8)
    marked, _ = contours(
        ids, np.ones(ids.shape, bool), voxel_size=SIZE, inwards=inwards, outwards=outwards
    )
    nm = slow_distance(ids, 1000.0)
    expected = ((nm > 0) & (nm < inwards + 0.01)) | ((nm < 0) & (nm > -outwards - 0.01))
    np.testing.assert_array_equal(marked, expected)


def test_a_contour_is_drawn_between_instances_that_touch():
    ids = np.zeros((1, 8, 12), np.uint64)
    ids[0, 1:7, 1:6], ids[0, 1:7, 6:11] = 3, 4
    marked, certain = contours(
        ids, np.ones(ids.shape, bool), voxel_size=(50.0, 8.0, 8.0), inwards=8.0, outwards=0.0
    )
    assert certain.all() and not marked[ids == 0].any()
    assert "".join("#" if m else "." for m in marked[0, 3]) == ".#...##...#."


def test_contours_of_thick_sections_lie_in_the_section():
    ids = np.zeros((3, 9, 9), np.uint8)
    ids[1, 1:8, 1:8] = 1  # in one section only: its caps are 50 nm away
    known = np.ones(ids.shape, bool)
    options = {"voxel_size": (50.0, 8.0, 8.0), "outwards": 0.0}
    assert not contours(ids, known, inwards=16.0, **options).marked[1, 4, 4]
    assert contours(ids, known, inwards=50.0, **options).marked[1, 4, 4]
    flat = contours(ids, known, inwards=31.0, sections=True, **options).marked
    assert not flat[1, 4, 4] and flat[1, 4, 3] and not flat[[0, 2]].any()
