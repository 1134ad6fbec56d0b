"""Local shape descriptors against Gaussian filters of one object at a time."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from em_blocks.kernels.segmentation.lsd import TRUNCATE, reach, shape_descriptors

CELL = 20.0  # nm; with SIGMA the window is sampled at every voxel
SIGMA = 60.0


def blobs(seed, shape=(9, 10, 11), objects=4, empty=0.1):
    """Labels of compact objects, with a few empty voxels."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.random((objects, *shape)), (0, 2, 2, 2))
    labels = (noise.argmax(axis=0) + 1).astype(np.uint64)
    labels[rng.random(shape) < empty] = 0
    return labels


def window_sum(field, sigma_nm, voxel_size):
    for axis, size in enumerate(voxel_size):
        side = int(TRUNCATE * sigma_nm / size + 1e-6)
        weight = np.exp(-0.5 * (np.arange(-side, side + 1) * size / sigma_nm) ** 2)
        field = ndimage.correlate1d(field, weight / weight.sum(), axis, mode="constant")
    return field


def slow(labels, sigma_nm, voxel_size):
    """Moments by their definition in absolute coordinates, object by object."""
    values = np.zeros((10, *labels.shape))
    at = np.indices(labels.shape) * np.reshape(voxel_size, (3, 1, 1, 1))
    for label in set(np.unique(labels)) - {0}:
        inside = (labels == label).astype(float)
        count = window_sum(inside, sigma_nm, voxel_size)
        here = inside.astype(bool)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = [window_sum(inside * p, sigma_nm, voxel_size) / count for p in at]
            cov = {
                (a, b): window_sum(inside * at[a] * at[b], sigma_nm, voxel_size) / count
                - mean[a] * mean[b]
                for a, b in itertools.combinations_with_replacement(range(3), 2)
            }
        parts = [0.5 + (m - p) / (2 * sigma_nm) for m, p in zip(mean, at, strict=True)]
        parts += [cov[a, a] / sigma_nm**2 for a in range(3)]
        for a, b in ((0, 1), (0, 2), (1, 2)):
            norm = np.sqrt(np.maximum(cov[a, a], 0) * np.maximum(cov[b, b], 0))
            parts.append(0.5 + 0.5 * cov[a, b] / np.maximum(norm, 1e-3))
        for channel, part in enumerate([*parts, count]):
            values[channel][here] = part[here]
    return np.clip(values, 0, 1)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(20, 20, 20), (40, 15, 15), (50, 20, 16)]))
@settings(max_examples=25, deadline=None)
def test_descriptors_are_those_of_the_slow_reference(seed, voxel_size):
    labels = blobs(seed)
    made = shape_descriptors(labels, sigma_nm=SIGMA, voxel_size=voxel_size)
    np.testing.assert_array_equal(made.mask, labels != 0)
    truth = slow(labels, SIGMA, voxel_size)
    np.testing.assert_allclose(made.values, truth, atol=2e-3)
    assert made.values.dtype == np.float32


def test_on_a_coarser_grid_the_grid_points_are_those_of_the_reference():
    labels = np.repeat(np.repeat(np.repeat(blobs(3), 2, 0), 2, 1), 3, 2)
    made = shape_descriptors(labels, sigma_nm=60, voxel_size=(7.5, 7.5, 5))
    truth = slow(labels[::2, ::2, ::3], 60, (15, 15, 15))
    np.testing.assert_allclose(made.values[:, ::2, ::2, ::3], truth, atol=2e-3)


def test_between_grid_points_the_offset_points_to_the_same_place():
    labels = np.ones((17, 17, 17), np.uint64)
    size = (5, 5, 5)
    made = shape_descriptors(labels, sigma_nm=60, voxel_size=size)  # a grid of 3 voxels
    at = np.indices(labels.shape) * 5.0
    centre = at + (made.values[:3] - 0.5) * 120
    for axis in range(3):
        np.testing.assert_allclose(centre[axis][6, 6, 6], centre[axis][5, 7, 6], atol=1e-2)
    assert np.ptp(made.values[3:, 5:8, 5:8, 5:8], axis=(1, 2, 3)).max() < 1e-6


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_ids_do_not_matter(seed):
    labels = blobs(seed)
    ids = np.concatenate([[0], np.random.default_rng(seed).permutation(4) + 2**60])
    other = ids.astype(np.uint64)[labels.astype(int)]
    one = shape_descriptors(labels, sigma_nm=SIGMA, voxel_size=(CELL,) * 3)
    two = shape_descriptors(other, sigma_nm=SIGMA, voxel_size=(CELL,) * 3)
    np.testing.assert_allclose(one.values, two.values, atol=1e-6)
    np.testing.assert_array_equal(one.mask, two.mask)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2))
@settings(max_examples=20, deadline=None)
def test_a_mirror_turns_the_offset_and_two_correlations(seed, axis):
    labels = blobs(seed)
    straight = shape_descriptors(labels, sigma_nm=SIGMA, voxel_size=(CELL,) * 3)
    turned = shape_descriptors(np.flip(labels, axis), sigma_nm=SIGMA, voxel_size=(CELL,) * 3)
    back = np.flip(turned.values, axis + 1)
    pairs = ((0, 1), (0, 2), (1, 2))
    opposite = {axis} | {6 + n for n, pair in enumerate(pairs) if axis in pair}
    inside = labels != 0
    for channel in range(10):
        expected = straight.values[channel][inside]
        found = back[channel][inside]
        if channel in opposite:
            found = 1 - found
        np.testing.assert_allclose(found, expected, atol=3e-4)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_exchanged_axes_exchange_channels(seed):
    labels = blobs(seed)
    one = shape_descriptors(labels, sigma_nm=SIGMA, voxel_size=(40, 15, 15)).values
    two = shape_descriptors(
        labels.transpose(1, 0, 2), sigma_nm=SIGMA, voxel_size=(15, 40, 15)
    ).values.transpose(0, 2, 1, 3)
    np.testing.assert_allclose(one, two[[1, 0, 2, 4, 3, 5, 6, 8, 7, 9]], atol=3e-4)


def test_inside_a_large_object_nothing_is_off_centre_and_everything_is_filled():
    size, margin = (40, 10, 10), reach(80, (40, 10, 10))
    assert margin == (4, 14, 14)
    labels = np.full([3 + 2 * m for m in margin], 7, np.int32)
    made = shape_descriptors(labels, sigma_nm=80, voxel_size=size, margin=margin)
    assert made.values.shape == (10, 3, 3, 3)
    # A voxel between two grid points sees up to half a step of its grid point's window.
    np.testing.assert_allclose(made.values[[0, 6, 7, 8]], 0.5, atol=1e-4)
    np.testing.assert_allclose(made.values[1:3], 0.5, atol=0.07)
    np.testing.assert_allclose(made.values[9], 1, atol=1e-5)
    assert (made.values[3:6] > 0.6).all()


def test_a_fibre_varies_along_itself_only():
    labels = np.zeros((15, 15, 31), np.uint8)
    labels[6:9, 6:9] = 1
    made = shape_descriptors(labels, sigma_nm=60, voxel_size=(15, 15, 15))
    z, y, x = made.values[3:6, 7, 7, 15]
    assert z == pytest.approx(y)
    assert x > 5 * z


def test_the_margin_is_looked_at_but_gets_no_descriptor():
    labels = blobs(1, shape=(14, 15, 16))
    whole = shape_descriptors(labels, sigma_nm=60, voxel_size=(20, 7, 7))
    inner = shape_descriptors(labels, sigma_nm=60, voxel_size=(20, 7, 7), margin=(2, 3, 5))
    inside = (..., slice(2, -2), slice(3, -3), slice(5, -5))
    np.testing.assert_array_equal(inner.values, whole.values[inside])
    np.testing.assert_array_equal(inner.mask, whole.mask[inside])


def test_nothing_labelled_is_nothing_described():
    made = shape_descriptors(np.zeros((4, 4, 4), int), sigma_nm=60, voxel_size=(10, 10, 10))
    assert not made.values.any()
    assert not made.mask.any()


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((4, 4), {}, "must be"),
        ((4, 4, 4), {"voxel_size": (10, 10)}, "must be"),
        ((4, 4, 4), {"sigma_nm": 0}, "positive"),
        ((4, 4, 4), {"voxel_size": (10, 0, 10)}, "positive"),
        ((4, 4, 4), {"margin": (0, 2, 0)}, "leaves nothing"),
        ((4, 4, 4), {"margin": (0, -1, 0)}, "leaves nothing"),
    ],
)
def test_what_does_not_fit_is_refused(shape, options, message):
    with pytest.raises(ValueError, match=message):
        shape_descriptors(
            np.ones(shape, int), **({"sigma_nm": 60, "voxel_size": (10, 10, 10)} | options)
        )
