"""Ids at points: the voxel of a point, or the nearest object."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from em_blocks.kernels.synapses.site_lookup import ids_at_sites, search_context
from em_blocks.kernels.transforms.positions import as_voxels

SIZE, OFFSET = np.array((40.0, 4.6, 4.6)), np.array((400.0, 46.0, -9.2))
SHAPE = (3, 9, 11)


def slow_ids(labels, sites, radius):
    """One site after the other, all voxels of the volume each time."""
    centres = np.stack(np.indices(labels.shape), axis=-1).reshape(-1, 3) + 0.5
    ids = []
    for site in sites:
        here = int(labels[tuple(np.floor(site).astype(int))])
        squared = (((site - centres) * SIZE) ** 2).sum(axis=1)
        near = [(d, i) for d, i in zip(squared, labels.ravel().tolist()) if i and d <= radius**2]
        ids.append(here or (min(near)[1] if near and radius else 0))
    return ids


volumes = arrays(np.uint64, SHAPE, elements=st.sampled_from([0, 0, 0, 0, 7, 3, 2**63 - 1]))
# Halves and quarters make ties, the others do not.
places = st.tuples(*(
    st.one_of(st.integers(0, 4 * n - 1).map(lambda q: q / 4), st.floats(0, n, exclude_max=True))
    for n in SHAPE
))


@given(volumes, st.lists(places, max_size=8), st.sampled_from([0.0, 4.6, 9.2, 21.0, 40.0, 90.0]))
def test_the_nearest_object_is_found(labels, sites, radius):
    sites = np.array(sites).reshape(-1, 3)
    found = ids_at_sites(
        labels, sites, corner=(0, 0, 0), voxel_size=SIZE, search_radius_nm=radius
    )
    assert found.ids.tolist() == slow_ids(labels, sites, radius)
    direct = labels[tuple(np.floor(sites).astype(int).T)] > 0
    np.testing.assert_array_equal(found.searched, ~direct & (found.ids > 0))


@given(volumes, places, st.sampled_from([0.0, 4.6, 11.5, 20.0, 47.0]))
def test_a_box_with_the_context_of_the_search_gives_what_the_volume_gives(labels, site, radius):
    voxel, context = np.floor(site).astype(int), search_context(radius, SIZE)
    low = np.maximum(voxel - context, 0)
    high = np.minimum(voxel + 1 + context, SHAPE)
    box = labels[tuple(slice(a, b) for a, b in zip(low, high))]
    options = {"voxel_size": SIZE, "search_radius_nm": radius}
    whole = ids_at_sites(labels, np.array([site]), corner=(0, 0, 0), **options)
    assert ids_at_sites(box, np.array([site]), corner=low, **options).ids == whole.ids


def test_of_equally_near_objects_the_smallest_id_is_taken():
    labels = np.zeros(SHAPE, np.uint32)
    labels[1, 4, 3], labels[1, 4, 7], labels[1, 2, 5] = 9, 5, 8
    found = ids_at_sites(
        labels, [[1.5, 4.5, 5.5]], corner=(0, 0, 0), voxel_size=SIZE, search_radius_nm=9.2
    )
    assert found.ids.tolist() == [5] and found.searched.all()


def test_distances_are_nm_not_voxels():
    """The next section is one voxel away, but 40 nm; four voxels to the side are nearer."""
    labels = np.zeros(SHAPE, np.uint32)
    labels[0, 4, 5], labels[1, 4, 9] = 1, 2
    found = ids_at_sites(
        labels, [[1.5, 4.5, 5.5]], corner=(0, 0, 0), voxel_size=SIZE, search_radius_nm=100
    )
    assert found.ids.tolist() == [2]


@given(st.tuples(*[st.integers(-500, 500_000)] * 3))
def test_the_corner_of_a_voxel_belongs_to_it(voxel):
    position = OFFSET + np.array(voxel) * SIZE
    found = as_voxels([position], voxel_size=SIZE, offset=OFFSET)
    assert np.floor(found).astype(int).tolist() == [list(voxel)]


def test_a_site_outside_of_the_box_is_an_error():
    labels = np.ones(SHAPE, np.uint8)
    for site in ([3.0, 1.5, 1.5], [-0.1, 1.5, 1.5]):
        with pytest.raises(ValueError, match="outside"):
            ids_at_sites(labels, [site], corner=(0, 0, 0), voxel_size=SIZE)


@pytest.mark.parametrize(("dtype", "wrong"), [("uint64", 2**63), ("int64", -1), ("int32", -5)])
def test_ids_that_no_database_holds_are_errors(dtype, wrong):
    labels = np.full(SHAPE, wrong, dtype)
    with pytest.raises(ValueError, match=str(wrong)):
        ids_at_sites(labels, [[1.5, 4.5, 5.5]], corner=(0, 0, 0), voxel_size=SIZE)


def test_no_sites_are_no_ids():
    found = ids_at_sites(np.ones(SHAPE, int), np.zeros((0, 3)), corner=(0, 0, 0), voxel_size=SIZE)
    assert len(found.ids) == len(found.searched) == 0
