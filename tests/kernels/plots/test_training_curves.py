"""Curves of trainings: their colours, the running mean, and what is no number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.plots.training_curves import COLOURS, running_mean, training_curves


@given(
    st.lists(st.one_of(st.floats(-1e3, 1e3), st.just(float("nan"))), min_size=1, max_size=30),
    st.integers(1, 30),
)
def test_a_running_mean_is_that_of_the_known_neighbours(values, n):
    n = min(n, len(values))
    values = np.array(values)
    windows = [values[i : i + n] for i in range(len(values) - n + 1)]
    known = [window[np.isfinite(window)] for window in windows]
    expected = [window.mean() if len(window) else np.nan for window in known]
    np.testing.assert_allclose(running_mean(values, n), expected, rtol=1e-9, atol=1e-9)


def pixels(picture, colour):
    """Number of pixels of a colour."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((picture == rgb).all(-1).sum())


def line(*values):
    return np.arange(len(values)), np.array(values, float)


def test_every_training_has_one_colour_in_all_diagrams():
    metrics = {
        "loss": {"a": line(3, 2, 1), "b": line(4, 3, 2)}, "f1": {"b": line(0.1, 0.2, 0.3)},
        "rate": {"a": line(1, 1, 1)},
    }
    picture = training_curves(metrics)
    assert picture.dtype == np.uint8 and picture.shape == (1152, 1728, 3)
    loss, f1 = picture[:576, :864], picture[:576, 864:]
    assert pixels(loss, COLOURS[0]) > 50 and pixels(loss, COLOURS[1]) > 50
    assert pixels(f1, COLOURS[0]) == 0 and pixels(f1, COLOURS[1]) > 50
    assert pixels(picture[576:, :864], COLOURS[0]) > 50


@pytest.mark.parametrize("values", [(np.nan, np.nan), (1.0, np.nan, 2.0), (1.0,)])
def test_values_that_are_no_number_are_gaps(values):
    assert training_curves({"loss": {"a": line(*values)}}, smooth=2).shape == (576, 864, 3)
