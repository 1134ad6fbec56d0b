"""Landscapes: thresholds to the byte, and the least of all maps."""

import numpy as np
import pytest

from em_blocks.kernels.instances.landscape import Levels, as_bytes, landscape
from flooding import slow_landscape

RNG = np.random.default_rng(0)
MAPS = RNG.integers(0, 256, (3, 6, 7, 8)).astype(np.uint8)


def test_thresholds_are_bytes_that_reach_them():
    assert Levels.of(0.6, foreground=0.8, contour=0.4, distance=0.5) == (153, 204, 102, 128)
    assert Levels.of(0.001, foreground=1) == (1, 255, 255, 0)


@pytest.mark.parametrize("maps", [0, 1, 2, 3])
def test_a_landscape_is_that_of_the_slow_reference(maps):
    foreground, contour, distance = MAPS[0], *(MAPS[n] if maps & n else None for n in (1, 2))
    seeds = {"foreground": 0.8, "contour": 0.4, "distance": 0.5}
    levels = Levels.of(
        0.6, foreground=0.8, contour=None if contour is None else 0.4,
        distance=None if distance is None else 0.5,
    )
    found = landscape(foreground, levels, contour, distance)
    want = slow_landscape(foreground, contour, distance, threshold=0.6, seeds=seeds)
    np.testing.assert_array_equal(found, want)
    assert found.dtype == np.uint8


def test_stored_values_become_bytes():
    values = np.array([0, 50, 100])
    assert as_bytes(values.astype("uint8"), 100.0).tolist() == [0, 128, 255]
    assert as_bytes((values * 100).astype("uint16"), 10000.0).tolist() == [0, 128, 255]
    assert as_bytes((values / 100).astype("float32"), 1.0).tolist() == [0, 128, 255]
    assert as_bytes(np.array([-1, 0.2, 1.0005], "float32"), 1.0).tolist() == [0, 51, 255]
    same = np.arange(256, dtype=np.uint8)
    assert as_bytes(same, 255.0) is same
