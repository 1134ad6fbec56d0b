"""Pictures of sections."""

import numpy as np

from em_blocks.kernels.plots.sections import (
    grey_picture,
    label_picture,
    outline_picture,
    overlay_picture,
    panel,
)


def test_grey_goes_from_black_to_white_and_clips():
    picture = grey_picture(np.array([[-5.0, 10, 15, 20, 99]]), low=10, high=20)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[0, :, 0], [0, 0, 128, 255, 255])
    assert (picture == picture[..., :1]).all()


def test_a_label_has_one_colour_wherever_it_is_and_background_is_dark():
    large = 2**62 + 1
    here = label_picture(np.array([[0, 7, large]], np.uint64))
    there = label_picture(np.array([[large, 5], [0, 7]], np.uint64))
    np.testing.assert_array_equal(here[0, [0, 1, 2]], there[[1, 1, 0], [0, 1, 0]])
    assert here[0, 0].max() < 50 < here[0, 1:].max(axis=-1).min()


def test_labels_of_neighbouring_ids_differ():
    colours = label_picture(np.arange(1, 60)[None].astype(np.uint64))[0]
    assert len(np.unique(colours, axis=0)) == 59
    assert (np.abs(np.diff(colours.astype(int), axis=0)).max(axis=-1) > 40).all()


def test_a_panel_shows_its_pictures_side_by_side():
    red, blue = np.zeros((2, 10, 20, 3), np.uint8)
    red[..., 0] = blue[..., 2] = 200
    sheet = panel({"red": red, "blue": blue}, title="two", pixel_nm=4, width=100)
    assert sheet.dtype == np.uint8
    for colour in ([200, 0, 0], [0, 0, 200]):
        assert (sheet == colour).all(axis=-1).sum() == 100 * 50


def test_an_overlay_shows_grey_values_colours_and_where_labels_meet():
    values = np.full((4, 6), 0.5)
    labels = np.repeat([[0, 0, 7, 7, 9, 9]], 4, axis=0)
    picture = overlay_picture(values, labels, opacity=0.5)
    np.testing.assert_array_equal(picture[0, 1], [128, 128, 128])
    mixed = (128 + label_picture(labels)[0, 3].astype(int)) / 2
    np.testing.assert_allclose(picture[0, 3], mixed, atol=1)
    assert (picture[:, [2, 4]].max(axis=-1) < picture[:, [3, 5]].min(axis=-1)).all()
    np.testing.assert_array_equal(overlay_picture(values, labels * 0), grey_picture(values))


def test_a_panel_goes_on_in_the_next_row():
    colours = [(200, 60 * n, 0) for n in range(3)]
    pictures = {str(c): np.full((10, 20, 3), c, np.uint8) for c in colours}
    sheet = panel(pictures, title="three", pixel_nm=4, width=100, columns=2)
    one_row = panel(pictures, title="three", pixel_nm=4, width=100)
    assert sheet.shape[1] < one_row.shape[1] and sheet.shape[0] > one_row.shape[0] + 50
    corners = [np.argwhere((sheet == c).all(axis=-1)).min(axis=0) for c in colours]
    assert corners[0][0] == corners[1][0] < corners[2][0] - 50
    assert corners[0][1] == corners[2][1] < corners[1][1] - 100


def test_an_outline_is_the_outermost_voxels_of_each_label():
    labels = np.zeros((6, 7), int)
    labels[1:5, 1:5] = 3
    picture = outline_picture(np.full(labels.shape, 0.5), labels, colour=(255, 0, 9))
    outlined = (picture == (255, 0, 9)).all(axis=-1)
    expected = labels > 0
    expected[2:4, 2:4] = False
    np.testing.assert_array_equal(outlined, expected)
    assert (picture[~outlined] == 128).all()
    own = outline_picture(np.zeros(labels.shape), labels)
    np.testing.assert_array_equal(own[1, 1], label_picture(labels)[1, 1])
