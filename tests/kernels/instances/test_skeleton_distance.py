"""Skeleton-aware distances of shapes whose values are known, and block by block."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import skeletonize

from em_blocks.kernels.instances.skeleton_distance import (
    section_distance,
    volume_distance,
    volume_reach,
)


def section(picture):
    """One section of ids from rows of digits."""
    return np.array([[list(map(int, row)) for row in picture.split()]], np.uint64)


def disc(radius, size):
    y, x = np.indices((size, size)) - size // 2
    return (y**2 + x**2 <= radius**2)[None].astype(np.uint64)


def test_a_single_pixel_is_its_own_skeleton():
    found = section_distance(section("000 040 000"))
    assert found[0, 1, 1] == 1
    assert (np.delete(found.ravel(), 4) == -1).all()
    assert found.dtype == np.float32


@pytest.mark.parametrize("ids", [section("00000 01110 00000"), section("100 010 001")])
def test_a_line_is_its_own_skeleton(ids):
    found = section_distance(ids)
    assert (found[ids > 0] == 1).all() and (found[ids == 0] == -1).all()


def test_a_piece_thinner_than_four_pixels_does_not_fall_to_zero():
    ids = section("0000 0110 0110 0000")
    away = ndimage.distance_transform_edt(~skeletonize(ids[0] > 0))[1:3, 1:3]
    assert away.max() == 1
    np.testing.assert_allclose(section_distance(ids)[0, 1:3, 1:3], 1 - (away / 2) ** 0.8, atol=1e-6)


def test_a_disc_falls_from_its_skeleton_to_the_rim_as_specified():
    ids = disc(9, 25)
    found, inside = section_distance(ids)[0], ids[0] > 0
    skeleton = skeletonize(inside)
    away = ndimage.distance_transform_edt(~skeleton)
    expected = 1 - (away / max(2, away[inside].max())) ** 0.8
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-6)
    assert (found[skeleton] == 1).all() and found[inside].min() == pytest.approx(0, abs=1e-6)
    assert (found[~inside] == -1).all()


def test_a_ring_with_a_hole_of_nine_pixels_is_filled_and_one_of_sixteen_is_not():
    ring = np.zeros((1, 15, 15), np.uint64)
    ring[0, 2:13, 2:13] = 7
    ring[0, 6:9, 6:9] = 0
    found = section_distance(ring)
    assert (found[ring > 0] >= 0).all() and found.max() == 1
    assert found[0, 6:9, 6:9].max() == 1  # the skeleton of the filled square lies in its hole
    outside = np.ones(ring.shape, bool)
    outside[0, 2:13, 2:13] = False
    assert (found[outside] == -1).all() and (found[~outside] >= 0).all()
    ring[0, 5:9, 5:9] = 0
    found = section_distance(ring)
    assert (found[0, 5:9, 5:9] == -1).all() and (found[ring > 0] >= 0).all()
    assert (section_distance(ring, hole=17)[0, 5:9, 5:9] >= 0).all()


def test_a_hole_with_another_instance_in_it_stays():
    ids = np.zeros((1, 9, 9), np.uint64)
    ids[0, 1:8, 1:8] = 3
    ids[0, 3:6, 3:6] = 0
    ids[0, 4, 4] = 5
    found = section_distance(ids)
    assert found[0, 4, 4] == 1 and found[0, 3, 3] == -1


def test_instances_that_touch_have_skeletons_of_their_own():
    ids = np.zeros((1, 9, 20), np.uint64)
    ids[0, 1:8, 1:10], ids[0, 1:8, 10:19] = 2**40, 9
    left, right = section_distance(ids)[0, 4, [5, 14]]
    assert left == right == 1
    assert section_distance(ids)[0, 4, 9:11].max() < 0.6
    own = ids == 2**40
    apart = np.where(own, ids, 0)
    np.testing.assert_array_equal(section_distance(ids)[own], section_distance(apart)[own])


def test_sections_do_not_see_each_other():
    two = np.concatenate([disc(5, 15), disc(3, 15)])
    np.testing.assert_array_equal(section_distance(two)[1], section_distance(disc(3, 15))[0])


def test_alpha_and_beta_shape_the_fall():
    ids = disc(9, 25)
    usual, inside = section_distance(ids)[ids > 0], ids > 0
    steeper = section_distance(ids, alpha=0.8)[inside]
    assert steeper.min() == 0 and (steeper == 0).sum() > (usual == 0).sum() + 10
    np.testing.assert_allclose(1 - section_distance(ids, beta=1.6)[inside], (1 - usual) ** 2, atol=1e-6)
    assert section_distance(ids, alpha=2)[inside].min() > 0.4


# -- all directions, nm -----------------------------------------------------------------------

SIZE = (12.0, 8.0, 8.5)


def slow_volume_distance(ids, largest, alpha=1.0, beta=0.8):
    """Instance by instance, voxel by voxel, with whole-array distance transforms."""
    result = np.full(ids.shape, -1.0)
    for one in np.unique(ids[ids > 0]):
        mask = ids == one
        depth = np.minimum(ndimage.distance_transform_edt(mask, sampling=SIZE), largest)
        depth[~mask] = 0
        if mask.all():
            depth[:] = largest
        ridge = np.zeros_like(mask)
        for at in np.argwhere(mask):
            rises = []
            for far, *step in np.ndindex(2, 3, 3, 3):
                shift = (np.array(step) - 1) * (far + 1)
                there = at + shift
                inside = (there >= 0).all() and (there < ids.shape).all()
                if shift.any() and inside and mask[tuple(there)]:
                    way = np.linalg.norm(shift * SIZE)
                    rises.append((depth[tuple(there)] - depth[tuple(at)]) / way)
            ridge[tuple(at)] = max(rises, default=0) < 0.5
        away = ndimage.distance_transform_edt(~ridge, sampling=SIZE)
        result[mask] = (1 - (away / (alpha * (away + depth))) ** beta)[mask]
    return np.where(ids > 0, result.clip(0), result)


def blobs(seed, shape=(22, 26, 24), n=5):
    """Touching instances of random shapes."""
    rng = np.random.default_rng(seed)
    seeds = rng.random((n, 3)) * shape
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    where = np.moveaxis(np.indices(shape), 0, -1)
    nearest = np.linalg.norm(where[..., None, :] - seeds, axis=-1).argmin(axis=-1)
    return np.where(smooth > -0.02, nearest + 11, 0).astype(np.uint64)


@pytest.mark.parametrize("options", [{}, {"alpha": 0.8, "beta": 1.3}])
def test_the_distance_in_all_directions_is_that_of_a_slow_reference(options):
    for seed in range(2):
        ids = blobs(seed, (10, 14, 12), 3)
        found = volume_distance(ids, voxel_size=SIZE, largest=40, **options)
        np.testing.assert_allclose(found, slow_volume_distance(ids, 40, **options), atol=1e-5)


def test_a_rod_is_one_along_its_middle_and_falls_to_its_surface():
    z, y, x = np.indices((40, 21, 21)) - np.reshape([20, 10, 10], (3, 1, 1, 1))
    ids = ((np.hypot(y, x) <= 8) & (abs(z) < 15)).astype(np.uint64)
    found = volume_distance(ids, voxel_size=(8.0, 8.0, 8.0), largest=200)
    assert (found[14:27, 10, 10] == 1).all()
    line = found[20, 10, 10:20]
    assert (np.diff(line[:9]) < 0).all() and 0 < line[8] < 0.2 and line[9] == -1
    assert found[ids == 0].max() == -1 and found[ids > 0].min() >= 0 and found.max() == 1


def test_a_block_with_its_reach_has_the_values_of_the_whole_volume():
    ids = blobs(3, (40, 44, 42), 6)
    size, largest = (10.0, 8.0, 9.0), 24.0
    whole = volume_distance(ids, voxel_size=size, largest=largest)
    reach = volume_reach(largest, size)
    assert max(reach) < 15
    for begin in ((12, 14, 13), (20, 15, 22), (0, 18, 30)):
        end = [b + n for b, n in zip(begin, (6, 9, 7), strict=True)]
        around = [
            slice(max(0, b - r), min(n, e + r))
            for b, e, r, n in zip(begin, end, reach, ids.shape, strict=True)
        ]
        inner = tuple(
            slice(b - a.start, e - a.start) for b, e, a in zip(begin, end, around, strict=True)
        )
        found = volume_distance(ids[tuple(around)], voxel_size=size, largest=largest)[inner]
        expected = whole[tuple(slice(b, e) for b, e in zip(begin, end, strict=True))]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_thin_instances_reach_as_much_as_thick_ones():
    ids = np.zeros((30, 30, 60), np.uint64)
    ids[5:25, 5:25, 2:30] = 1
    ids[14:17, 14:17, 30:58] = 1  # a process of three voxels
    found = volume_distance(ids, voxel_size=(8.0, 8.0, 8.0), largest=60)
    assert (found[15, 15, 32:56] == 1).all()
