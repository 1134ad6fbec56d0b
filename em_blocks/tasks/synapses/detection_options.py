"""Parts of an extraction's config: what is a site of a synapse."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from em_blocks.config import StrictModel
from em_blocks.kernels.synapses.detection import DetectionRule, SplitRule


class Split(StrictModel):
    """Take components apart at their necks."""

    min_distance_nm: PositiveFloat = Field(
        description="Parts whose widest places are nearer to each other stay together."
    )
    min_size: PositiveInt = Field(1, description="Voxels that a part must have.")


class _Detection(StrictModel):
    """What all methods have in common."""

    threshold: NonNegativeFloat = Field(
        0.5, description="Voxels of more than this are looked at; in units of the network's output."
    )
    score: Literal["sum", "mean", "max", "count"] = Field(
        "sum", description="Score of a site, from the voxels of its component."
    )
    min_score: float | None = Field(None, description="Sites of this score or less are left out.")
    min_size: PositiveInt = Field(1, description="Sites of fewer voxels are left out.")
    max_size: PositiveInt | None = Field(None, description="Sites of more voxels are left out.")

    @model_validator(mode="after")
    def _sizes_rise(self) -> Self:
        if self.max_size is not None and self.max_size < self.min_size:
            raise ValueError(
                f"max_size {self.max_size} is less than min_size {self.min_size}, so no site would be "
                "left; exchange them"
            )
        return self

    def rule(self) -> DetectionRule:
        """Return the rule as the kernel takes it."""
        return DetectionRule(**dict(self))


class Components(_Detection):
    """Every connected component of voxels above the threshold is a site."""

    method: Literal["components"] = "components"
    site: Literal["edt", "centroid", "peak"] = Field(
        "edt", description="The voxel farthest from the component's border, nearest to its centre of "
        "mass, or of the largest value."
    )
    split: Split | None = Field(None, description="Take components apart that have run together.")

    def rule(self) -> DetectionRule:
        values = dict(self)
        split = values.pop("split")
        return DetectionRule(**values, split=split and SplitRule(**dict(split)))


class Maxima(_Detection):
    """Every local maximum above the threshold is a site."""

    method: Literal["maxima"]
    radius_nm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        description="Half axes (z, y, x) of the ellipsoid in which nothing may be larger, nm."
    )
    score: Literal["sum", "mean", "max", "count"] = Field("max", description="Score of a site.")


Detection = Annotated[Components | Maxima, Field(discriminator="method")]
