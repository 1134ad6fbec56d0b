"""CLAHE: against the definition, voxel by voxel, and against scikit-image where the two agree."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.exposure import equalize_adapthist

from em_blocks.geometry import Box
from em_blocks.kernels.images.contrast_maps import BRIGHTEST, contrast_maps, region_histograms
from em_blocks.kernels.images.equalize import equalize, regions_around
from preparing import textured


def whole(grey, kernel_shape, clip_limit, counted=None):
    counted = np.ones(grey.shape, bool) if counted is None else counted
    maps = contrast_maps(region_histograms(grey, counted, kernel_shape), clip_limit)
    return equalize(grey, counted, maps, box=Box((0, 0, 0), grey.shape), kernel_shape=kernel_shape,
                    shape=grey.shape)


# -- the definition, slowly -------------------------------------------------------------------


def slow_map(counts, clip_limit):
    """One region: what is above the limit is poured over the other grey values until it is level."""
    total = sum(counts)
    if total == 0:
        return None
    limit = max(int(clip_limit * total), -(-total // 256), 1)
    height = [Fraction(min(n, limit)) for n in counts]
    excess = total - sum(height)
    while excess > 0:
        low = [g for g in range(256) if height[g] < limit]
        step = min(excess / len(low), min(limit - height[g] for g in low))
        for g in low:
            height[g] += step
        excess -= step * len(low)
    ranks = list(itertools.accumulate(height))
    return [int(rank / total * BRIGHTEST + Fraction(1, 2)) / 256 for rank in ranks]


def slow_equalize(grey, kernel_shape, clip_limit, counted):
    """One voxel after the other, in exact weights; floats."""
    n_regions = [-(-n // k) for n, k in zip(grey.shape, kernel_shape)]
    maps = {}
    for region in np.ndindex(*n_regions):
        cut = tuple(slice(r * k, (r + 1) * k) for r, k in zip(region, kernel_shape))
        values = grey[cut][counted[cut]]
        maps[region] = slow_map(np.bincount(values, minlength=256).tolist(), clip_limit)
    result = grey.astype(float)
    for voxel in zip(*np.nonzero(counted)):
        ends = []
        for v, k, n in zip(voxel, kernel_shape, n_regions):
            place = Fraction(2 * int(v) + 1 - k, 2 * k)
            before = place.numerator // place.denominator
            way = place - before
            ends.append([(min(max(before, 0), n - 1), 1 - way), (min(max(before + 1, 0), n - 1), way)])
        value = weight = 0
        for corner in itertools.product(*ends):
            found = maps[tuple(region for region, _ in corner)]
            share = np.prod([float(s) for _, s in corner])
            if found is not None and share:
                value, weight = value + share * found[grey[voxel]], weight + share
        result[voxel] = value / weight
    return result


@pytest.mark.parametrize("clip_limit", [0.01, 0.05, 1.0])
@pytest.mark.parametrize(
    ("shape", "kernel_shape"),
    [((9, 17, 22), (4, 8, 8)), ((3, 30, 20), (1, 16, 16)), ((8, 9, 7), (8, 9, 7)),
     ((5, 11, 13), (7, 5, 40))],
)
def test_every_voxel_is_what_the_definition_says(shape, kernel_shape, clip_limit):
    grey = textured(shape, seed=sum(shape))
    counted = np.random.default_rng(1).random(shape) < 0.9
    counted[: shape[0] // 2 + 1, :9, :8] = False  # regions in which no voxel counts
    exact = slow_equalize(grey, kernel_shape, clip_limit, counted)
    result = whole(grey, kernel_shape, clip_limit, counted)
    assert np.abs(result - exact).max() <= 0.5 + 1e-3
    np.testing.assert_array_equal(result[~counted], grey[~counted])
    assert (result != grey).mean() > 0.3


@given(
    st.integers(0, 10**6), st.sampled_from([0, 1 / 256, 0.1, 0.5, 1]),
    st.sampled_from([1, 3, 40, 10**6]), st.floats(1e-4, 1),
)
def test_a_map_is_that_of_the_definition_and_never_falls(seed, share, most, clip_limit):
    rng = np.random.default_rng(seed)
    histogram = rng.integers(0, most + 1, 256) * (rng.random(256) < share)
    made = contrast_maps(histogram[None], clip_limit)[0].astype(int)
    exact = slow_map(histogram.tolist(), clip_limit)
    if exact is None:
        assert not made.any()
        return
    assert (np.diff(made) >= 0).all() and made[-1] == BRIGHTEST
    np.testing.assert_array_equal(made / 256, exact)


# -- what follows ---------------------------------------------------------------------------------


def test_without_a_limit_a_grey_value_becomes_its_rank():
    grey = np.array([10, 10, 20, 200], np.uint8).repeat(100).reshape(4, 10, 10)
    result = whole(grey, (4, 10, 10), 1.0)
    assert [int(result[grey == g].max()) for g in (10, 20, 200)] == [128, 191, 255]


def test_an_even_region_nearly_keeps_its_grey_value():
    for value in (0, 3, 100, 252, 255):
        grey = np.full((4, 16, 16), value, np.uint8)
        assert np.abs(whole(grey, (2, 8, 8), 0.02).astype(int) - value).max() <= 6


def test_the_lowest_limit_is_that_of_the_identity():
    grey = textured((4, 32, 32), seed=3)
    np.testing.assert_allclose(whole(grey, (4, 16, 16), 1e-9), grey, atol=1)


@settings(max_examples=40)
@given(st.data())
def test_a_box_has_the_values_that_it_has_in_the_whole_volume(data):
    shape, kernel_shape = (7, 21, 26), data.draw(st.sampled_from([(3, 8, 8), (1, 9, 30), (8, 7, 5)]))
    begin = [data.draw(st.integers(0, n - 1)) for n in shape]
    end = [data.draw(st.integers(b + 1, n)) for b, n in zip(begin, shape)]
    grey, box = textured(shape, seed=5), Box.between(begin, end)
    counted = np.random.default_rng(2).random(shape) < 0.8
    maps = contrast_maps(region_histograms(grey, counted, kernel_shape), 0.02)
    needed = regions_around(box, kernel_shape, shape)
    part = equalize(grey[box.slices], counted[box.slices], maps[needed.slices], box=box,
                    kernel_shape=kernel_shape, shape=shape)
    np.testing.assert_array_equal(part, whole(grey, kernel_shape, 0.02, counted)[box.slices])


def test_a_box_in_the_middle_of_a_region_needs_no_region_beyond_it_and_its_neighbours():
    lattice = {"kernel_shape": (1, 8, 8), "shape": (20, 64, 64)}
    assert regions_around(Box((8, 12, 4), (1, 1, 1)), **lattice) == Box((8, 1, 0), (1, 2, 2))
    assert regions_around(Box((0, 0, 0), (20, 4, 64)), **lattice) == Box((0, 0, 0), (20, 1, 8))


@pytest.mark.parametrize("axis", range(3))
def test_a_mirrored_image_has_a_mirrored_result(axis):
    grey = textured((6, 24, 16), seed=6)
    result = whole(grey, (3, 8, 8), 0.03).astype(int)
    mirrored = np.flip(whole(np.flip(grey, axis), (3, 8, 8), 0.03), axis)
    assert np.abs(result - mirrored).max() <= 1  # sums of floats in another order
    assert (result != mirrored).mean() < 1e-3


def test_voxels_that_do_not_count_have_no_say():
    grey = textured((4, 32, 32), seed=7)
    counted = np.ones(grey.shape, bool)
    counted[:, :10] = False
    other = np.where(counted, grey, 255 - grey)
    a, b = (whole(g, (4, 16, 16), 0.02, counted) for g in (grey, other))
    np.testing.assert_array_equal(a[counted], b[counted])


def compared(shape, kernel_shape, clip_limit):
    """Difference to scikit-image in one section, in grey values of 0 to 255.

    Of grey values that are bins of scikit-image, which has 253 of 65 of its levels; it stretches its
    result.
    """
    grey = textured((1, *shape), seed=8) % 253
    grey.flat[:2] = 0, 252
    levels = grey[0].astype(np.uint16) * 65
    levels.flat[1] = 2**14 - 1  # so that its own scaling does nothing
    theirs = equalize_adapthist(levels, kernel_size=kernel_shape, clip_limit=clip_limit)
    ours = whole(grey, (1, *kernel_shape), clip_limit)[0].astype(float)
    assert np.abs(theirs * 255 - grey[0]).mean() > 10
    return np.abs((ours - ours.min()) / (ours.max() - ours.min()) - theirs) * 255


@pytest.mark.parametrize("clip_limit", [0.01, 0.03, 1.0])
def test_scikit_image_has_the_same_map_of_one_region(clip_limit):
    assert compared((96, 80), (96, 80), clip_limit).max() < 1.1


@pytest.mark.parametrize("clip_limit", [0.02, 1.0])
def test_scikit_image_has_nearly_the_same_between_large_regions(clip_limit):
    """Its centres of regions of even size lie half a voxel after the middle."""
    difference = compared((384, 256), (128, 128), clip_limit)
    assert difference.mean() < 0.6 and np.quantile(difference, 0.999) < 2
