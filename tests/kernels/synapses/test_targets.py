import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from em_blocks.kernels.synapses.targets import partner_vectors, site_balls

SIZE, OFFSET = np.array([40.0, 4.0, 4.0]), np.array([400.0, 40.0, 8.0])
SHAPE = (3, 24, 28)


def at(z, y, x):
    """Position of a voxel's centre, nm."""
    return OFFSET + (np.array([z, y, x]) + 0.5) * SIZE


def made(labels, post, pre, radius_nm):
    return partner_vectors(
        labels, np.array(post), np.array(pre), radius_nm=radius_nm, voxel_size=SIZE, offset=OFFSET
    )


def test_a_ball_of_10_nm_covers_21_voxels_of_one_section():
    marked = site_balls(
        np.ones(SHAPE, int), [at(1, 12, 14)], radius_nm=10, voxel_size=SIZE, offset=OFFSET
    )
    assert marked.sum() == 21 and marked[1].sum() == 21


def test_a_radius_of_a_section_is_inclusive():
    marked = site_balls(
        np.ones(SHAPE, int), [at(1, 12, 14)], radius_nm=40, voxel_size=SIZE, offset=OFFSET
    )
    assert marked[0].sum() == marked[2].sum() == 1


def test_a_ball_stays_in_the_neuron_of_its_site():
    labels = np.ones(SHAPE, np.uint64)
    labels[:, 13:] = 2
    marked = site_balls(labels, [at(1, 12, 14)], radius_nm=10, voxel_size=SIZE, offset=OFFSET)
    assert marked[1, 12, 14] and not marked[:, 13:].any()


def test_a_site_outside_paints_what_reaches_in():
    marked = site_balls(
        np.ones(SHAPE, int), [at(1, -2, 14)], radius_nm=10, voxel_size=SIZE, offset=OFFSET
    )
    assert marked[1, 0, 14] == 1 and marked.sum() == 3  # 8 nm away: 6 nm remain to either side


def test_every_voxel_points_from_its_centre_to_the_partner():
    vectors, mask = made(np.ones(SHAPE, int), [at(1, 12, 14)], [at(-1, 30, 2)], 20)
    for voxel in np.argwhere(mask):
        np.testing.assert_allclose(at(*voxel) + vectors[:, *voxel], at(-1, 30, 2), atol=1e-3)
    assert not vectors[:, mask == 0].any()


def test_where_balls_overlap_the_nearest_site_decides():
    post, pre = [at(1, 12, 10), at(1, 12, 16)], [at(0, 0, 0), at(2, 20, 20)]
    vectors, _ = made(np.ones(SHAPE, int), post, pre, 30)
    np.testing.assert_allclose(at(1, 12, 12) + vectors[:, 1, 12, 12], pre[0], atol=1e-3)
    np.testing.assert_allclose(at(1, 12, 14) + vectors[:, 1, 12, 14], pre[1], atol=1e-3)
    np.testing.assert_allclose(at(1, 12, 13) + vectors[:, 1, 12, 13], pre[0], atol=1e-3)


def test_a_voxel_of_another_neuron_follows_its_own_site_however_far():
    labels = np.ones(SHAPE, int)
    labels[:, :, 13:] = 2
    post, pre = [at(1, 12, 12), at(1, 12, 20)], [at(0, 0, 0), at(2, 20, 20)]
    vectors, _ = made(labels, post, pre, 60)
    np.testing.assert_allclose(at(1, 12, 13) + vectors[:, 1, 12, 13], pre[1], atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([10, 33.0, 60]))
def test_the_kernel_equals_a_loop_over_voxels_and_sites(seed, radius_nm):
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 3, SHAPE)
    low, high = OFFSET - 3 * SIZE, OFFSET + (np.array(SHAPE) + 3) * SIZE
    post, pre = rng.uniform(low, high, (4, 3)), rng.uniform(low, high, (4, 3))
    vectors, mask = made(labels, post, pre, radius_nm)
    centres = np.floor((post - OFFSET) / SIZE)
    owners = [labels[tuple(np.clip(c, 0, np.subtract(SHAPE, 1)).astype(int))] for c in centres]
    for voxel in np.ndindex(*SHAPE):
        away = np.linalg.norm((np.array(voxel) - centres) * SIZE, axis=1)
        away[(away > radius_nm + 1e-4) | (np.array(owners) != labels[voxel])] = np.inf
        assert mask[voxel] == np.isfinite(away.min())
        if mask[voxel]:
            expected = pre[away.argmin()] - at(*voxel)
            np.testing.assert_allclose(vectors[:, *voxel], expected, atol=1e-3)
