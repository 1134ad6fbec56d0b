"""What a network was trained on, from its setup, and what fits to it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.models.config import Normalization, SetupConfig
from em_blocks.training.data.domain import FULL_RANGES, Domain, full_range
from tiny_setup import tiny_config

UINT8 = {"scale": 2 / 255, "shift": -1.0}


def domain(**values) -> Domain:
    return Domain.of(SetupConfig.from_dict({**tiny_config(), **values}))


@pytest.mark.parametrize(
    ("normalization", "dtype", "intensities"),
    [
        (UINT8, "uint8", (0, 255)),
        ({"scale": 0.01, "shift": -1.0}, "uint8", (0, 255)),  # 0 to 200: most of its range
        ({"scale": 2 / 65535, "shift": -1.0}, "uint16", (0, 65535)),
        ({"scale": 2 / 4095, "shift": -1.0}, "uint16", (0, 4095)),  # 12 bits of 16
        ({"scale": 2.0, "shift": -1.0}, "float", (0, 1)),
        ({"scale": -2.0, "shift": 1.0}, "float", (0, 1)),  # inverted
        ({"scale": 2 / 255, "shift": 1 / 255}, "int8", (-128, 127)),
    ],
)
def test_the_normalization_tells_what_was_trained_on(normalization, dtype, intensities):
    found = domain(normalization=normalization)
    assert found.dtype == dtype
    assert found.intensities == pytest.approx(intensities, abs=1e-6)


def test_a_setup_may_state_its_intensities():
    found = domain(normalization=UINT8, intensities=[0, 4095])
    assert (found.dtype, found.intensities) == ("uint16", (0, 4095))


@pytest.mark.parametrize(
    ("low", "high", "fits"),
    [
        (0, 255, True), (60, 200, True), (-25.5, 280.5, True), (100, 112.75, True),
        (-25.6, 200, False), (0, 280.6, False), (100, 112.7, False), (0, 1, False), (0, 65535, False),
    ],
)
def test_intensities_fit_if_they_lie_in_the_range_and_fill_some_of_it(low, high, fits):
    assert domain(normalization=UINT8).holds(low, high) is fits


def test_only_the_8_bit_dtype_of_training_needs_no_look_at_the_data():
    trained = domain(normalization=UINT8)
    assert trained.has_dtype(np.dtype("uint8"))
    assert not any(trained.has_dtype(np.dtype(d)) for d in ("int8", "uint16", "float32"))
    wide = domain(normalization={"scale": 2 / 65535, "shift": -1.0})
    assert not wide.has_dtype(np.dtype("uint16"))


@given(st.sampled_from(sorted(FULL_RANGES)), st.floats(0, 1))
def test_the_whole_range_of_any_dtype_becomes_that_of_training(dtype, share):
    trained, found = Normalization(**UINT8), domain(normalization=UINT8)
    low, high = FULL_RANGES[dtype]
    scale = found.from_range((low, high), trained)
    value = low + share * (high - low)
    expected = share * 255 * trained.scale + trained.shift
    assert value * scale["scale"] + scale["shift"] == pytest.approx(expected, abs=1e-9)


def test_uint8_by_its_dtype_is_scaled_exactly_as_in_training():
    trained = Normalization(scale=0.01, shift=-1.0)
    found = domain(normalization=trained.model_dump())
    assert found.from_range((0.0, 255.0), trained) == trained.model_dump()


def test_dtypes_that_no_image_has_have_no_range():
    assert full_range(np.dtype("float16")) == (0, 1)
    assert full_range(np.dtype("int32")) is None


def test_a_voxel_size_is_off_by_its_worst_axis():
    found = domain(voxel_size=[40, 4, 4])
    assert found.off((40.0, 4.0, 4.0)) == 0
    assert found.off((40.0, 4.2, 4.0)) == pytest.approx(0.05)
    assert found.off((30.0, 4.2, 4.0)) == pytest.approx(0.25)
