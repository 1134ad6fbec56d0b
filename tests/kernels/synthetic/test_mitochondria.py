"""Grown mitochondria: they touch where they should, hold together, and no box changes them."""

import cc3d
import numpy as np
import pytest

from em_blocks.kernels.synthetic.free_space import FreeSpace
from em_blocks.kernels.synthetic.mitochondria import (
    GAP_NM,
    LEAST_RADIUS_NM,
    OVERLAP_NM,
    ROUGH_NM,
    Mitochondria,
    grow_mitochondria,
    paint_mitochondria,
)

VOXEL_SIZE, SHAPE, SEED = (30.0, 13.7, 13.7), (60, 150, 160), 4
EXTENT = np.multiply(SHAPE, VOXEL_SIZE)


@pytest.fixture(scope="module")
def grown():
    return grow_mitochondria(EXTENT, seed=SEED, per_um3=6.0, touching=0.5)


@pytest.fixture(scope="module")
def labels(grown):
    return paint_mitochondria(grown, (0, 0, 0), SHAPE, voxel_size=VOXEL_SIZE)


def gap(grown, one, other):
    """Distance of the surfaces of two mitochondria, nm."""
    a, b = (grown.body == number for number in (one, other))
    apart = np.linalg.norm(grown.position[a][:, None] - grown.position[b], axis=-1)
    return (apart - grown.radius[a][:, None] - grown.radius[b]).min()


def test_there_are_as_many_as_wanted_and_ids_ascend(grown):
    wanted = round(6.0 * EXTENT.prod() / 1e9)
    assert 0.75 * wanted <= len(grown) <= 1.25 * wanted  # the border cuts some off, and some in two
    assert (grown.position >= 0).all() and (grown.position <= EXTENT).all()
    np.testing.assert_array_equal(np.unique(grown.body), np.arange(1, len(grown) + 1))
    assert (np.diff(grown.body) >= 0).all()
    assert grown.radius.min() >= LEAST_RADIUS_NM


def test_pairs_that_touch_overlap_a_little_and_all_others_keep_a_gap(grown):
    touching = {tuple(pair) for pair in grown.touching}
    assert len(touching) == len(grown.touching) >= 10
    apart = 0
    for one in range(1, len(grown) + 1):
        for other in range(one + 1, len(grown) + 1):
            found = gap(grown, one, other)
            if (one, other) in touching:
                assert -OVERLAP_NM[1] - 1e-6 <= found < 0
            else:  # some that touch beyond the border come near each other in it
                assert found >= 0
                apart += found < GAP_NM - 1e-6
    assert apart <= 3


def test_labels_of_touching_pairs_share_faces_and_others_do_not(grown, labels):
    met = set(cc3d.contacts(labels.astype(np.uint32), connectivity=6))
    assert len(met - {tuple(pair) for pair in grown.touching}) <= 1
    assert len(met) >= 0.8 * len(grown.touching)


def test_every_mitochondrion_is_one_component_also_where_the_border_cuts_it(grown, labels):
    parts = cc3d.connected_components(labels, connectivity=26)
    sizes = np.bincount(parts.ravel())
    for number in np.unique(labels)[1:]:
        found = np.unique(parts[labels == number])
        assert (sizes[found] > 10).sum() <= 1, number  # bumps may cut off a few voxels


def test_voxels_are_those_within_the_spheres_but_for_bumps(grown, labels):
    rng = np.random.default_rng(0)
    for voxel in rng.integers(0, SHAPE, (300, 3)):
        below = np.linalg.norm((voxel + 0.5) * VOXEL_SIZE - grown.position, axis=1) - grown.radius
        nearest = np.argmin(below)
        if abs(below[nearest]) > 4 * ROUGH_NM:
            assert labels[tuple(voxel)] == (grown.body[nearest] if below[nearest] < 0 else 0)


def test_surfaces_are_rough(grown, labels):
    smooth = Mitochondria(*grown[:-1], seed=SEED + 1)
    other = paint_mitochondria(smooth, (0, 0, 0), SHAPE, voxel_size=VOXEL_SIZE)
    assert 0.001 < (labels != other).mean() < 0.05


@pytest.mark.parametrize(("begin", "shape"), [((0, 0, 0), (13, 150, 160)), ((20, 61, 3), (40, 17, 99)),
                                              ((-4, 140, -9), (9, 20, 30))])
def test_a_box_is_painted_as_in_the_whole_volume(grown, labels, begin, shape):
    found = paint_mitochondria(grown, begin, shape, voxel_size=VOXEL_SIZE)
    end = np.add(begin, shape)
    inside = tuple(slice(max(0, b), min(n, e)) for b, e, n in zip(begin, end, SHAPE, strict=True))
    there = tuple(slice(i.start - b, i.stop - b) for i, b in zip(inside, begin, strict=True))
    np.testing.assert_array_equal(found[there], labels[inside])


def test_some_have_necks_and_some_branch(grown):
    necks = branches = 0
    for number in range(1, len(grown) + 1):
        own = grown.body == number
        steps = np.linalg.norm(np.diff(grown.position[own], axis=0), axis=1)
        branches += bool((steps > 30).any())  # a second curve begins somewhere on the first
        radius = grown.radius[own][: int(np.argmax(np.append(steps, 99) > 30)) + 1]
        low = int(np.argmin(radius))
        necks += radius[low] < 0.6 * min(radius[:low + 1].max(), radius[low:].max())
    assert 0.1 * len(grown) < branches < 0.45 * len(grown)
    assert 0.1 * len(grown) < necks < 0.6 * len(grown)


def test_the_same_seed_grows_the_same_and_another_one_others(grown):
    again = grow_mitochondria(EXTENT, seed=SEED, per_um3=6.0, touching=0.5)
    other = grow_mitochondria(EXTENT, seed=SEED + 1, per_um3=6.0, touching=0.5)
    np.testing.assert_array_equal(again.position, grown.position)
    assert not np.array_equal(other.position[:5], grown.position[:5])


def test_nothing_grows_in_a_tiny_box_and_its_voxels_are_background():
    none = grow_mitochondria((10, 10, 10), seed=0)
    assert len(none) == 0 and none.touching.shape == (0, 2)
    assert not paint_mitochondria(none, (0, 0, 0), (3, 4, 5), voxel_size=(4, 4, 4)).any()


def test_where_there_is_no_room_fewer_grow():
    crowded = grow_mitochondria((500, 500, 500), seed=0, per_um3=200)
    assert 0 < len(crowded) < 25


def test_clearance_is_the_distance_of_surfaces_of_the_nearest_body():
    space = FreeSpace(reach_nm=100.0)
    point = np.zeros((1, 3))
    assert space.clearance(point, np.array([10.0])) == np.inf
    first = space.add(np.array([[0.0, 0, 40]]), np.array([5.0]))
    second = space.add(np.array([[0.0, -60, 0], [0, -90, 0]]), np.array([5.0, 7.0]))
    assert (first, second, len(space)) == (1, 2, 2)
    assert space.clearance(point, np.array([10.0])) == pytest.approx(25.0)
    assert space.clearance(point, np.array([10.0]), apart_from=first) == pytest.approx(45.0)
    assert space.clearance(np.array([[0.0, -88, 0]]), np.array([10.0])) == pytest.approx(2 - 17)
    positions, radii, numbers = space.spheres()
    assert radii.tolist() == [5, 5, 7] and numbers.tolist() == [1, 2, 2] and len(positions) == 3
