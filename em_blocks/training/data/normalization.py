"""Scale and shift of raw data, measured as a config asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from em_blocks.errors import ConfigError
from em_blocks.models.normalization import (
    Normalization,
    NormalizationChoice,
    PercentileNormalization,
)
from em_blocks.training.data.domain import Domain, full_range
from em_blocks.training.data.raw_sample import RawSample
from em_blocks.volumes import Volume

if TYPE_CHECKING:
    from em_blocks.models.config import SetupConfig


def measured_normalization(
    sample: RawSample, raw: Volume, config: SetupConfig, normalization: NormalizationChoice | None
) -> dict[str, float]:
    """Measure finite scale and shift of raw data, as a config asks for.

    Raises
    ------
    ConfigError
        If what would be measured holds NaN or infinity or is nearly constant, or the dtype has no range.
    """
    trained = config.normalization
    if normalization is None:
        return trained.model_dump()
    if isinstance(normalization, Normalization):
        return normalization.model_dump()
    if isinstance(normalization, PercentileNormalization):
        return _by_percentiles(sample, raw, normalization)
    return Domain.of(config).from_range(_whole_range(sample, raw), trained)


def _by_percentiles(
    sample: RawSample, raw: Volume, normalization: PercentileNormalization
) -> dict[str, float]:
    if (bad := sample.bad()) is not None:
        raise ConfigError(
            f"The percentiles {normalization.percentiles} of {raw.path} cannot be measured: {bad}. They "
            "would not be numbers, and every block would fail. Repair the volume there, or give "
            "'normalization' as scale and shift, with which only the blocks there fail."
        )
    low, high = (float(v) for v in np.percentile(sample.values, normalization.percentiles))
    if low == high:
        raise ConfigError(
            f"The percentiles {normalization.percentiles} of {raw.path} are both {low}: the "
            "volume is nearly constant there. Give scale and shift instead."
        )
    return {"scale": 2 / (high - low), "shift": -1 - 2 * low / (high - low)}


def _whole_range(sample: RawSample, raw: Volume) -> tuple[float, float]:
    limits = full_range(raw.dtype)
    if limits is None:
        raise ConfigError(
            f"'normalization' is \"dtype\", but no image uses the whole range of {raw.dtype}, which "
            f"{raw.path} is stored as. Use {{\"percentiles\": [1, 99]}}, or scale and shift."
        )
    low, high = sample.tails
    if raw.dtype.kind == "f" and (low < -0.1 or high > 1.1):
        raise ConfigError(
            f"'normalization' is \"dtype\", which for floats means 0 to 1, but {raw.path} holds {low:g} "
            f"to {high:g}. Use {{\"percentiles\": [1, 99]}}, or scale and shift."
        )
    return limits
