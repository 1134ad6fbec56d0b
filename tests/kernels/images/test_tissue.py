"""Opening and closing, against scikit-image's morphology."""

import numpy as np
import pytest
from scipy import ndimage
from skimage import morphology

from em_blocks.kernels.images.tissue import dilate, erode, reach, tissue


def noise(shape=(20, 34, 41), seed=0):
    values = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.3)
    return (values - values.min()) / (values.max() - values.min())


def ellipsoid(radius):
    grid = np.indices([2 * r + 1 for r in radius]) - np.reshape(radius, (3, 1, 1, 1))
    scaled = [g / r if r else np.where(g, 2, 0) for g, r in zip(grid, radius)]
    return (np.square(scaled).sum(0) <= 1 + 1e-9).astype(np.uint8)


def test_the_ellipsoid_of_equal_half_axes_is_the_ball_of_scikit_image():
    for radius in range(1, 6):
        np.testing.assert_array_equal(ellipsoid([radius] * 3), morphology.ball(radius))


@pytest.mark.parametrize("radius", [(3, 3, 3), (1, 2, 3), (0, 4, 4), (1, 5, 5), (0, 0, 0), (2, 6, 4)])
def test_eroded_and_dilated_by_an_ellipsoid(radius):
    mask = noise() > 0.45
    footprint = ellipsoid(radius)
    np.testing.assert_array_equal(
        erode(mask, radius), ndimage.binary_erosion(mask, footprint, border_value=1))
    np.testing.assert_array_equal(dilate(mask, radius), ndimage.binary_dilation(mask, footprint))


def test_tissue_is_opened_by_one_ball_then_closed_by_another():
    values = noise(seed=3) * 200
    found = (values > 60) & (values < 130)
    expected = found
    for step, size in ((morphology.opening, 3), (morphology.closing, 2)):
        expected = step(expected, morphology.ball(size))
    made = tissue(values, 60, 130, opening=(3, 3, 3), closing=(2, 2, 2))
    inner = (slice(10, -10),) * 3  # scikit-image has another rule at the end of an array
    np.testing.assert_array_equal(made[inner], expected[inner])
    assert 0.05 < made.mean() < 0.95


def test_both_ends_of_the_range_are_excluded():
    values = np.arange(6, dtype="uint8").repeat(16).reshape(6, 4, 4)
    made = tissue(values, 1, 4, opening=(0, 0, 0), closing=(0, 0, 0))
    assert made[:, 0, 0].tolist() == [False, False, True, True, False, False]


@pytest.mark.parametrize(("opening", "closing"), [((3, 3, 3), (2, 2, 2)), ((0, 3, 2), (1, 2, 4))])
def test_a_box_with_what_reaches_into_it_has_the_values_of_the_whole(opening, closing):
    values, around = noise(seed=5), reach(opening, closing)
    options = {"opening": opening, "closing": closing}
    whole = tissue(values, 0.3, 0.6, **options)
    for corner in ((5, 9, 12), (0, 0, 0), (12, 20, 30)):
        end = np.minimum(np.add(corner, (4, 7, 9)), values.shape)
        begin, until = np.maximum(np.subtract(corner, around), 0), np.minimum(end + around, values.shape)
        seen = values[tuple(map(slice, begin, until))]
        part = tissue(seen, 0.3, 0.6, **options)[tuple(map(slice, corner - begin, end - begin))]
        np.testing.assert_array_equal(part, whole[tuple(map(slice, corner, end))])


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_volume_of_one_kind_stays_so(value):
    made = tissue(np.full((5, 6, 7), value), 0.3, 0.6, opening=(3, 3, 3), closing=(2, 2, 2))
    assert made.all() if value else not made.any()
