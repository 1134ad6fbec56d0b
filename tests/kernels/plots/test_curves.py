"""Diagrams: what they show cannot be tested here, that they show something can."""

import subprocess
import sys

import numpy as np
import pytest

from em_blocks.kernels.evaluation.segmentation_scores import Voi
from em_blocks.kernels.plots.curves import split_vs_merge, threshold_curve

NAMES = ["0.5", "0.1", "0.3"]
VOIS = [Voi(0.2, 2.0), Voi(2.0, 0.1), Voi(0.6, 0.3)]


def colours(picture):
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    return {tuple(colour) for colour in picture.reshape(-1, 3)[::7].tolist()}


@pytest.mark.parametrize("thresholds", [[0.5, 0.1, 0.3], None])
def test_a_curve_is_drawn_in_the_order_of_thresholds(thresholds):
    picture = threshold_curve(thresholds, NAMES, VOIS, [0.3, 0.4, 0.1])
    assert len(colours(picture)) > 20
    if thresholds:
        order = [1, 2, 0]
        again = threshold_curve(
            [thresholds[n] for n in order], [NAMES[n] for n in order], [VOIS[n] for n in order],
            [0.4, 0.1, 0.3],
        )
        np.testing.assert_array_equal(picture, again)


@pytest.mark.parametrize("n", [1, 3])
def test_split_vs_merge_draws_one_or_many(n):
    assert len(colours(split_vs_merge(NAMES[:n], VOIS[:n]))) > 20


def test_perfect_segmentations_can_be_drawn():
    assert colours(split_vs_merge(["a"], [Voi(0, 0)]))
    assert colours(threshold_curve([1, 1], ["a", "b"], [Voi(0, 0)] * 2, [0, 0]))


def test_matplotlib_is_loaded_only_to_draw_and_without_a_display():
    code = (
        "import sys, em_blocks.kernels.plots.curves as plots; assert 'matplotlib' not in sys.modules;"
        "plots.split_vs_merge(['a'], [plots.Voi(1, 2)]); assert 'matplotlib' in sys.modules;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
