"""What a setup's config says of the data that its network learns from."""

from __future__ import annotations

from typing import Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from em_blocks.config import LocalPath, Shape3, StrictModel

Corner = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]


class PhantomSpec(StrictModel):
    """A volume from the generator instead of from disk."""

    shape: Shape3
    seed: NonNegativeInt
    neurite_nm: PositiveFloat = 400.0
    synapses_per_um3: NonNegativeFloat = 0.0


class DataSource(StrictModel):
    """Raw data with labels: two zarr arrays, or a phantom."""

    raw: LocalPath | None = None
    labels: LocalPath | None = None
    synapses: LocalPath | None = Field(
        None, description="Synaptic partners of the raw data; needed by heads that learn synapses."
    )
    phantom: PhantomSpec | None = None
    begin: Corner = Field((0, 0, 0), description="First voxel used (z, y, x).")
    end: Shape3 | None = Field(None, description="End of the used voxels, excluded; default all.")
    weight: PositiveFloat = Field(1.0, description="Relative share of the samples.")

    @model_validator(mode="after")
    def _arrays_or_phantom(self) -> Self:
        arrays = self.raw is not None and self.labels is not None
        if arrays == (self.phantom is not None) or (self.raw is None) != (self.labels is None):
            raise ValueError("give either both `raw` and `labels`, or `phantom`")
        if self.phantom is not None and self.synapses is not None:
            raise ValueError("a `phantom` brings its own synapses: leave `synapses` out")
        return self
