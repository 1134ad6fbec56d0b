"""The choice of random samples: which are used, and which are drawn again."""

from __future__ import annotations

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from em_blocks.config import StrictModel
from em_blocks.models.schedules import Fraction, Schedule
from em_blocks.models.sources import Name
from em_blocks.models.truth import LABELS


class Foreground(StrictModel):
    """Demand samples that hold enough of the objects of one label volume or class."""

    label: Name = Field(LABELS, description="Name of the label volume or class.")
    fraction: Fraction | None = Field(
        None, exclude_if=lambda fraction: fraction is None,
        description="Least share of the voxels that have an id there, or are of the class.",
    )
    voxels: PositiveInt | None = Field(
        None, exclude_if=lambda voxels: voxels is None,
        description="Least number of these voxels, instead of `fraction`.",
    )
    probability: Schedule = Field(1.0, description="Share of the samples that must hold as much.")

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        if (self.fraction is None) == (self.voxels is None):
            raise ValueError("give either `fraction` or `voxels`")
        return self


class Sampling(StrictModel):
    """Choose which samples are used; others are drawn again."""

    labelled: Fraction = Field(
        0.5,
        description="Least share of voxels that are labelled in any of the label volumes; of classes, "
        "those of which it is known whether they are of the class; of instances, the annotated ones.",
    )
    masked: dict[Name, Fraction] = Field(
        {}, description="Least share of voxels inside of masks, by name."
    )
    foreground: tuple[Foreground, ...] = Field(
        (), description="Objects that samples must hold, each with a probability of its own."
    )
    sites: Schedule = Field(
        0.0, description="Share of the samples that must hold a postsynaptic site."
    )
