"""The data that a network was made for: intensities and voxel size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # a setup's config needs torch, for its losses
    from em_blocks.models.config import Normalization, SetupConfig

Range = tuple[float, float]

FULL_RANGES: dict[str, Range] = {
    "float": (0.0, 1.0), "uint8": (0.0, 255.0), "int8": (-128.0, 127.0),
    "uint16": (0.0, 65535.0), "int16": (-32768.0, 32767.0),
}
"""Intensities of each dtype, the narrowest first; floats have no range, 0 to 1 is meant."""

# What lies so far outside of the range (share of its width) is no longer what was trained on,
# augmentation of contrast and brightness included; what fills less of it looks constant.
MARGIN, LEAST_SPREAD = 0.1, 0.05


def full_range(dtype: np.dtype) -> Range | None:
    """Return the intensities that images of a dtype can have; None if images are not stored so."""
    return FULL_RANGES.get("float" if dtype.kind == "f" else dtype.name)


@dataclass(frozen=True)
class Domain:
    """Describe the data that a network was trained on.

    Attributes
    ----------
    dtype : str or None
        Of raw volumes with these intensities; "float" for 0 to 1, None if no dtype has them.
    intensities : (low, high)
        Of the raw data in training.
    voxel_size : (3,) float
        nm (z, y, x).
    """

    dtype: str | None
    intensities: Range
    voxel_size: tuple[float, float, float]

    @classmethod
    def of(cls, config: SetupConfig) -> Domain:
        """Make the domain that a setup states, else the one that its normalization maps to -1 .. 1."""
        if config.intensities is not None:
            return cls(_dtype_of(config.intensities), config.intensities, config.voxel_size)
        scale, shift = config.normalization.scale, config.normalization.shift
        low, high = sorted(((-1 - shift) / scale, (1 - shift) / scale))
        dtype = _dtype_of((low, high))
        if dtype is not None and high - low > 0.5 * _width(FULL_RANGES[dtype]):
            low, high = FULL_RANGES[dtype]
        return cls(dtype, (low, high), config.voxel_size)

    def holds(self, low: float, high: float) -> bool:
        """Tell whether data that lie between `low` and `high` are like those of training."""
        width, (least, most) = _width(self.intensities), self.intensities
        return (
            low >= least - MARGIN * width and high <= most + MARGIN * width
            and high - low >= LEAST_SPREAD * width
        )

    def has_dtype(self, dtype: np.dtype) -> bool:
        """Tell whether `dtype` can hold nothing but intensities of training: integers of 8 bits."""
        return dtype.itemsize == 1 and dtype.name == self.dtype

    def from_range(self, values: Range, trained: Normalization) -> dict[str, float]:
        """Compute scale and shift with which `values` look as the intensities of training do."""
        factor = _width(self.intensities) / _width(values)
        moved = self.intensities[0] - values[0] * factor
        return {"scale": trained.scale * factor, "shift": trained.shift + trained.scale * moved}

    def off(self, voxel_size: tuple[float, float, float]) -> float:
        """Compute the largest relative difference between `voxel_size` and that of training."""
        return max(
            abs(a / b - 1) for a, b in zip(voxel_size, self.voxel_size, strict=True)
        )


def _dtype_of(intensities: Range) -> str | None:
    low, high = intensities
    slack = 0.01 * (high - low)
    return next(
        (name for name, (a, b) in FULL_RANGES.items() if low >= a - slack and high <= b + slack), None
    )


def _width(values: Range) -> float:
    return values[1] - values[0]
