"""The data that a network learns from, as the config of a setup names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    StringConstraints,
    Tag,
    model_validator,
)

from em_blocks.config import LocalPath, RoiConfig, Shape3, StrictModel, VolumeInput, VolumeRef
from em_blocks.models.normalization import NormalizationChoice
from em_blocks.models.truth import LABELS

Corner = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Volumes = Annotated[dict[Name, VolumeRef], Field(min_length=1)]


def _spelling(value: Any) -> str:
    return "<volumes>" if isinstance(value, Mapping) and "path" not in value else "<volume>"


def _plain(value: str | VolumeInput | Volumes) -> str | VolumeInput | Volumes:
    # Both spellings of one label volume are one training.
    return value[LABELS] if isinstance(value, dict) and value.keys() == {LABELS} else value


LabelVolumes = Annotated[
    Annotated[VolumeRef, Tag("<volume>")] | Annotated[Volumes, Tag("<volumes>")],
    Discriminator(_spelling),
    AfterValidator(_plain),
]
"""One label volume, which is called "labels", or several by name."""


class PhantomSpec(StrictModel):
    """A volume from the generator instead of from disk."""

    shape: Shape3
    seed: NonNegativeInt
    neurite_nm: PositiveFloat = 400.0
    synapses_per_um3: NonNegativeFloat = 0.0


class DataSource(StrictModel):
    """Raw data with labels, in any format that a prediction reads, or a phantom."""

    raw: VolumeRef | None = None
    labels: LabelVolumes | None = Field(
        None,
        description='Ids, 0 where nothing is known: one volume, which is called "labels", or '
        '{"name": volume, ...}; HDF5 as file.h5:dataset.',
    )
    masks: Volumes | None = Field(
        None, description='{"name": volume, ...}: 0 outside of what the mask marks.'
    )
    synapses: LocalPath | None = Field(
        None, description="Synaptic partners of the raw data; needed by heads that learn synapses."
    )
    phantom: PhantomSpec | None = None
    begin: Corner = Field((0, 0, 0), description="First voxel of raw that is used (z, y, x).")
    end: Shape3 | None = Field(
        None, description="End of the used voxels of raw, excluded; default all that have labels."
    )
    rois: Annotated[tuple[RoiConfig, ...], Field(min_length=1)] | None = Field(
        None,
        description="Regions that are used, instead of `begin` and `end`. They share the weight of "
        "the source by their size.",
    )
    weight: PositiveFloat = Field(1.0, description="Relative share of the samples.")
    normalization: NormalizationChoice | None = Field(
        None,
        description="How raw is scaled, as the key of a prediction; default: as the setup says.",
    )

    @property
    def label_volumes(self) -> dict[str, str | VolumeInput]:
        """Return all label volumes by name; none of a phantom."""
        if self.labels is None:
            return {}
        return self.labels if isinstance(self.labels, dict) else {LABELS: self.labels}

    @model_validator(mode="after")
    def _arrays_or_phantom(self) -> Self:
        arrays = self.raw is not None and self.labels is not None
        if arrays == (self.phantom is not None) or (self.raw is None) != (self.labels is None):
            raise ValueError("give either both `raw` and `labels`, or `phantom`")
        if self.phantom and (self.synapses or self.masks or self.normalization):
            raise ValueError(
                "a `phantom` brings its own synapses: leave `synapses` out, `masks` and "
                "`normalization` too"
            )
        if self.rois is not None and (any(self.begin) or self.end is not None):
            raise ValueError("give either `rois` (nm), or `begin` and `end` (voxels of raw)")
        return self
