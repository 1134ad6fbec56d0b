"""One contrast of all raw: what a new setup states of it."""

import numpy as np

from em_blocks.training.review.contrast import shared_contrast
from preparing import volume

CLAHE = {"method": "CLAHE", "clip_limit": 0.02}


def test_volumes_share_a_contrast_if_all_say_the_same(tmp_path):
    values = np.ones((2, 8, 8), "uint8")
    a, b = (volume(tmp_path, values, name, equalized=CLAHE).path for name in "ab")
    other = volume(tmp_path, values, "c", equalized={**CLAHE, "clip_limit": 0.01}).path
    silent = volume(tmp_path, values, "d").path
    assert shared_contrast([a, b]) == CLAHE
    for raws in ([a, other], [a, silent], [silent], [], ["file.h5:raw", a]):
        assert shared_contrast(raws) is None
