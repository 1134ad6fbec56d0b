"""Pictures of errors: what is drawn where."""

import numpy as np

from em_blocks.kernels.plots.instance_errors import _draw_mark, error_picture


def drawn(raw=None, **options):
    truth, prediction = np.zeros((2, 20, 30), np.uint32)
    truth[5:15, 5:12], truth[5:15, 12:20], prediction[5:15, 5:20] = 1, 2, 7
    values = {"true_ids": (1, 2), "predicted_ids": (7,), "mark": (10, 12), "title": "merge",
              "pixel_nm": 4.6, **options}
    return error_picture(raw=raw, truth=truth, prediction=prediction, **values)


def test_an_image_gets_a_panel_of_its_own():
    raw = np.arange(600.0).reshape(20, 30)
    with_image, without = drawn(raw), drawn()
    assert with_image.dtype == np.uint8 and with_image.shape[2] == 3
    assert with_image.shape[1] - without.shape[1] == 384 + 14


def test_objects_of_the_error_are_drawn_stronger_than_others():
    strong, faint = drawn(), drawn(true_ids=(), predicted_ids=())
    assert strong.max(axis=2)[64:].mean() > faint.max(axis=2)[64:].mean() + 5


def test_an_image_of_one_value_is_drawn_too():
    assert drawn(np.full((20, 30), 9, np.uint8)).shape == drawn(np.zeros((20, 30))).shape


def test_a_cross_leaves_its_voxel_visible_and_stays_in_the_picture():
    picture = np.zeros((9, 9, 3), np.uint8)
    _draw_mark(picture, (1, 4))
    red = np.argwhere(picture[..., 0] == 255).tolist()
    assert [1, 4] not in red and [3, 4] in red and [1, 0] in red and len(red) == 9
