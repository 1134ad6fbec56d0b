"""How stored intensities become what a network sees."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from em_blocks.config import StrictModel


class Normalization(StrictModel):
    """The network sees ``raw * scale + shift``."""

    scale: float
    shift: float


Percent = Annotated[float, Field(ge=0, le=100)]


class PercentileNormalization(StrictModel):
    """Two percentiles of the whole volume, measured once per run, become -1 and 1."""

    percentiles: tuple[Percent, Percent]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.percentiles[0] >= self.percentiles[1]:
            raise ValueError(f"percentiles must rise, got {self.percentiles}")
        return self


NormalizationChoice = Normalization | PercentileNormalization | Literal["dtype"]
"""``"dtype"``: the whole range of raw's dtype (floats: 0 to 1) is that of the training data."""
