"""Values of voxels in another form."""

import numpy as np
import pytest

from em_blocks.kernels.images.conversions import (
    LARGEST_COLOUR,
    ids_to_rgb,
    inverted,
    misfit,
    relabelled,
    rgb_to_grey,
    rgb_to_ids,
    scaled,
)


@pytest.mark.parametrize(("dtype", "largest"), [("uint8", 255), ("uint16", 65535)])
def test_dark_becomes_bright(dtype, largest):
    found = inverted(np.array([0, 1, 200, largest], dtype))
    assert found.dtype == dtype and found.tolist() == [largest, largest - 1, largest - 200, 0]


def colours(*voxels):
    return np.array(voxels, np.uint8).T.reshape(-1, 1, 1, len(voxels))


def test_colours_are_ids_of_24_bits_with_red_in_front():
    ids = rgb_to_ids(colours((0, 0, 7), (0, 2, 1), (3, 2, 1), (255, 255, 255)))
    assert ids.dtype == np.uint32
    assert ids.ravel().tolist() == [7, 2 * 256 + 1, 3 * 65536 + 2 * 256 + 1, 2**24 - 1]


@pytest.mark.parametrize("dtype", ["uint32", "int64", "uint64"])
def test_ids_and_colours_are_made_of_each_other(dtype):
    ids = np.array([[[0, 1, 255, 256, 65535, 65536, 0x030201, LARGEST_COLOUR]]], dtype)
    colours = ids_to_rgb(ids)
    assert colours.dtype == np.uint8 and colours[0, 0, 6].tolist() == [3, 2, 1]
    np.testing.assert_array_equal(rgb_to_ids(np.moveaxis(colours, -1, 0)), ids)


@pytest.mark.parametrize("wrong", [-1, LARGEST_COLOUR + 1])
def test_ids_that_are_no_colours_are_an_error(wrong):
    with pytest.raises(ValueError, match=f"0 to {LARGEST_COLOUR}, got .*{wrong}"):
        ids_to_rgb(np.array([[[3, wrong]]]))


def test_what_is_transparent_is_no_object():
    ids = rgb_to_ids(colours((0, 0, 7, 255), (0, 2, 1, 0), (3, 2, 1, 1)))
    assert ids.ravel().tolist() == [7, 0, 197121]


def test_grey_is_luminance_rounded():
    grey = rgb_to_grey(colours((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (10, 10, 10)))
    assert grey.ravel().tolist() == [76, 150, 29, 255, 10] and grey.dtype == np.uint8


@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint64"])
def test_ids_are_replaced_and_others_stay_or_become_0(dtype):
    values = np.array([[[0, 3, 5]], [[9, 3, 0]]], dtype)
    kept = relabelled(values, {3: 5, 5: 3, 0: 1}, keep=True)
    assert kept.dtype == dtype and kept.ravel().tolist() == [1, 5, 3, 9, 5, 1]
    assert relabelled(values, {3: 7}, keep=False).ravel().tolist() == [0, 7, 0, 0, 7, 0]


def test_ids_of_64_bits_are_exact():
    values = np.array([[[2**63 + 1, 2**63 + 2]]], np.uint64)
    found = relabelled(values, {2**63 + 1: 2**64 - 1}, keep=True)
    assert found.ravel().tolist() == [2**64 - 1, 2**63 + 2]


@pytest.mark.parametrize(
    ("values", "source", "target", "wrong"),
    [
        ([0, 255], "uint16", "uint8", None), ([0, 256], "uint16", "uint8", 256),
        ([-1, 5], "int16", "uint16", -1), ([0, 5], "int16", "uint8", None),
        ([1.0, 2.0], "float32", "uint8", None), ([1.0, 2.5], "float32", "uint8", 2.5),
        ([1.0, np.inf], "float32", "uint8", np.inf),
        ([2**24, 2**24 + 1], "uint32", "float32", 2**24 + 1),
        ([0.5, 3], "float64", "float32", None), ([0.1], "float64", "float32", 0.1),
        ([np.nan, 1], "float64", "float32", None), ([], "float64", "uint8", None),
        ([2**63], "uint64", "int64", 2**63), ([2**64 - 1], "uint64", "uint64", None),
    ],
)
def test_the_first_value_that_does_not_fit_is_told(values, source, target, wrong):
    assert misfit(np.array(values, source), np.dtype(target)) == wrong


def test_what_is_no_number_is_no_integer():
    assert np.isnan(misfit(np.array([1, np.nan], "float32"), np.dtype("uint8")))


def test_one_range_is_mapped_to_another():
    found = scaled(np.array([1000, 1500, 3000], "uint16"), (1000, 3000), (0, 255))
    assert found.tolist() == [0, 63.75, 255]
