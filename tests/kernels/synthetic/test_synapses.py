"""Synapses of the generator: at true contacts of the right neurons, and to be seen there."""

import numpy as np
import pytest
from scipy import ndimage

from em_blocks.kernels.synthetic import volume as generator
from em_blocks.kernels.synthetic.synapses import (
    PARTNER_SPACING_NM,
    TBAR_SPACING_NM,
    place_synapses,
    synapse_table,
)
from em_blocks.kernels.synthetic.tissue import Tissue
from em_blocks.kernels.synthetic.volume import phantom

SEED, DENSITY = 7, 14.0
VOLUMES = {(40, 4, 4): (12, 280, 260), (40, 4.6, 4.6): (10, 220, 240), (8, 8, 8): (80, 100, 100)}


@pytest.fixture(scope="module", params=VOLUMES, ids=str)
def voxel_size(request):
    return request.param


@pytest.fixture(scope="module")
def made(voxel_size):
    return phantom(VOLUMES[voxel_size], voxel_size=voxel_size, seed=SEED, synapses_per_um3=DENSITY)


@pytest.fixture(scope="module")
def plain(voxel_size):
    """The same volume without synapses."""
    return phantom(VOLUMES[voxel_size], voxel_size=voxel_size, seed=SEED)


def tissue_of(made, voxel_size):
    voxel_size = np.asarray(voxel_size, float)
    neurons = made.neurons.astype(np.uint32)
    return Tissue(neurons, made.mitochondria.astype(np.uint32),
                  generator._depth(neurons, voxel_size), voxel_size)


def voxels(positions, voxel_size):
    return tuple(np.floor(positions / voxel_size).astype(int).T)


def tbars(synapses):
    return np.unique(synapses.pre, axis=0)


def test_both_sites_lie_in_their_neurons_however_a_reader_finds_the_voxel(made, voxel_size):
    synapses = made.synapses
    assert len(synapses) >= 10
    for find in (np.floor, np.round):
        for site, neuron in (("pre", "pre_segment"), ("post", "post_segment")):
            at = tuple(find(getattr(synapses, site) / voxel_size).astype(int).T)
            np.testing.assert_array_equal(made.neurons[at], getattr(synapses, neuron))
            assert not made.mitochondria[at].any()
    assert (synapses.pre_segment != synapses.post_segment).all()
    assert synapses.id.tolist() == list(range(1, len(synapses) + 1))


def test_the_line_between_two_sites_crosses_one_membrane_and_no_third_neuron(made, voxel_size):
    synapses = made.synapses
    for row, length in enumerate(synapses.distance):
        steps = np.linspace(synapses.pre[row], synapses.post[row], 201)
        inside = made.neurons[voxels(steps, voxel_size)] == synapses.pre_segment[row]
        beyond = made.neurons[voxels(steps, voxel_size)] == synapses.post_segment[row]
        first, last = np.argmax(beyond), 200 - np.argmax(inside[::-1])
        assert first > 0 and last < 200
        # Along the steps of a slanted membrane it may touch both in turn, or the corner of a third.
        assert (last - first) * length / 200 < 40
        assert np.sum(~(inside | beyond)) * length / 200 < 15


def test_neurons_of_a_pair_touch_in_the_section_near_both_sites(made, voxel_size):
    synapses = made.synapses
    reach = np.ceil(60 / np.array(voxel_size)).astype(int) * [0 if voxel_size[0] == 40 else 1, 1, 1]
    for row, at in enumerate(zip(*voxels(synapses.post, voxel_size), strict=True)):
        box = tuple(slice(max(0, a - r), a + r + 1) for a, r in zip(at, reach, strict=True))
        pre, post = (made.neurons[box] == getattr(synapses, f"{side}_segment")[row]
                     for side in ("pre", "post"))
        assert (ndimage.binary_dilation(pre) & post).any()


def test_sites_are_as_far_apart_as_in_flies(made):
    synapses = made.synapses
    assert synapses.distance.min() > 45 and synapses.distance.max() < 230
    assert 60 < np.median(synapses.distance) < 130


def test_a_tbar_has_one_to_five_different_partners_and_one_position(made):
    synapses = made.synapses
    _, rows, counts = np.unique(synapses.pre, axis=0, return_inverse=True, return_counts=True)
    assert counts.max() >= 3 and counts.max() <= 5
    assert 1.5 < counts.mean() < 4
    for tbar in range(len(counts)):
        own = rows.ravel() == tbar
        assert len(np.unique(synapses.post_segment[own])) == counts[tbar]
        assert len(np.unique(synapses.pre_segment[own])) == 1


def test_tbars_and_postsynaptic_sites_keep_their_distances(made):
    spacings = {TBAR_SPACING_NM: tbars(made.synapses), PARTNER_SPACING_NM: made.synapses.post}
    for least, sites in spacings.items():
        gaps = np.linalg.norm(sites[:, None] - sites[None], axis=-1)
        assert gaps[~np.eye(len(sites), dtype=bool)].min() >= least - 1e-6


def test_sites_keep_off_the_border(made, voxel_size):
    for sites in (made.synapses.pre, made.synapses.post):
        at = np.stack(voxels(sites, voxel_size), axis=1)
        assert (at >= 2).all() and (at < np.array(made.raw.shape) - 2).all()


def test_there_are_about_as_many_as_wanted(made, voxel_size):
    volume = np.prod(made.raw.shape * np.array(voxel_size)) / 1e9
    assert 0.5 * DENSITY * volume <= len(tbars(made.synapses)) <= DENSITY * volume + 1


def test_synapses_change_nothing_but_the_image_around_them(made, plain):
    assert len(plain.synapses) == 0
    np.testing.assert_array_equal(made.neurons, plain.neurons)
    np.testing.assert_array_equal(made.mitochondria, plain.mitochondria)
    changed = made.raw != plain.raw
    assert 0.005 < changed.mean() < 0.25


def test_at_every_site_something_darker_than_membranes_is_seen_in_its_section(made, plain, voxel_size):
    window = (1, *(2 * int(36 // v) + 1 for v in voxel_size[1:]))
    smooth = [ndimage.gaussian_filter(m.raw.astype(float), (0, 0.8, 0.8)) for m in (made, plain)]
    darkest = ndimage.minimum_filter(smooth[0], window)
    darkened = ndimage.maximum_filter(smooth[1] - smooth[0], window)
    for sites in (made.synapses.pre, made.synapses.post):
        at = voxels(sites, voxel_size)
        assert np.percentile(darkened[at], 10) > 20 and darkened[at].min() > 5
        assert np.median(darkest[at]) < np.percentile(smooth[1], 1)


def test_the_same_seed_places_the_same_synapses_and_another_seed_others(made, voxel_size):
    tissue = tissue_of(made, voxel_size)
    one, two, other = (
        synapse_table(place_synapses(np.random.default_rng(seed), tissue, DENSITY), tissue)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.post, two.post)
    np.testing.assert_array_equal(one.pre, two.pre)
    assert len(one) and (len(one) != len(other) or (one.post != other.post).any())


def test_the_same_seed_paints_the_same_bytes():
    one, two = (phantom((9, 150, 150), seed=3, synapses_per_um3=30) for _ in range(2))
    assert len(one.synapses)
    assert one.raw.tobytes() == two.raw.tobytes()


def halves(voxel_size, shape):
    """Two neurons with a plane between them, across y."""
    neurons = np.ones(shape, np.uint32)
    neurons[:, shape[1] // 2 :] = 2
    voxel_size = np.array(voxel_size, float)
    return Tissue(neurons, np.zeros_like(neurons), generator._depth(neurons, voxel_size), voxel_size)


@pytest.mark.parametrize(("voxel_size", "shape"), [((40, 4, 4), (12, 120, 200)),
                                                   ((8, 8, 8), (60, 60, 100))])
def test_a_tbar_on_a_flat_membrane_points_straight_at_its_one_partner(voxel_size, shape):
    tissue = halves(voxel_size, shape)
    placed = place_synapses(np.random.default_rng(0), tissue, 20.0)
    assert len(placed) >= 2 and {tbar.neuron for tbar in placed} == {1, 2}
    middle = shape[1] // 2 * voxel_size[1]
    for tbar in placed:
        outward = 1 if tbar.neuron == 1 else -1
        np.testing.assert_allclose(tbar.normal, [0, outward, 0], atol=0.15)
        (partner,) = tbar.partners
        assert partner.neuron == 3 - tbar.neuron
        assert 28 <= outward * (middle - tissue.centers(tbar.voxel)[1]) <= 50
        assert 12 <= outward * (tissue.centers(partner.voxel)[1] - middle) <= 35
        assert abs(partner.contact[1] - middle) <= voxel_size[1]


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 40, 40), (20, 5, 200)])
def test_a_volume_without_room_has_no_synapses(shape):
    made = phantom(shape, seed=1, synapses_per_um3=50)
    assert len(made.synapses) == 0


def test_one_neuron_alone_makes_no_synapse():
    tissue = halves((40, 4, 4), (8, 100, 100))
    lonely = tissue._replace(neurons=np.ones_like(tissue.neurons))
    assert place_synapses(np.random.default_rng(0), lonely, 20.0) == []
