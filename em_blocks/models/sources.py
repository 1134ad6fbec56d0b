"""The data that a network learns from, as the config of a setup names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

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

from em_blocks.config import (
    LocalPath,
    RoiConfig,
    Shape3,
    StrictModel,
    VolumeInput,
    VolumeRef,
    VoxelSize,
)
from em_blocks.models.normalization import NormalizationChoice
from em_blocks.models.truth import LABELS, METRIC

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


class ClassLabels(StrictModel):
    """Where one class is annotated, and what unpainted voxels mean."""

    volume: VolumeRef = Field(description="Ids of any integer type; HDF5 as file.h5:dataset.")
    ids: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = Field(
        None, description="Ids that are the class; default: all but 0 and `background`."
    )
    background: tuple[NonNegativeInt, ...] = Field(
        (), description="Ids that are certainly not of the class."
    )
    unpainted: Literal["background", "unknown"] = Field(
        "background",
        description="Meaning of all other ids, 0 among them: not of the class, or not annotated.",
    )

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        if both := sorted(set(self.ids or ()) & set(self.background)):
            raise ValueError(f"the ids {both} are both `ids` of the class and `background`")
        return self


class PhantomSpec(StrictModel):
    """A volume from the generator instead of from disk."""

    shape: Shape3
    seed: NonNegativeInt
    neurite_nm: PositiveFloat = 400.0
    synapses_per_um3: NonNegativeFloat = 0.0


class DataSource(StrictModel):
    """Raw data with labels or classes, in any format that a prediction reads, or a phantom."""

    name: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        None, description="Name in messages and scores; default: the end of the path of raw."
    )
    raw: VolumeRef | None = None
    labels: LabelVolumes | None = Field(
        None,
        description='Ids, 0 where nothing is known: one volume, which is called "labels", or '
        '{"name": volume, ...}; HDF5 as file.h5:dataset.',
    )
    classes: Annotated[dict[Name, ClassLabels], Field(min_length=1)] | None = Field(
        None,
        description="Annotated classes by name. One that is neither here nor in `absent` is unknown "
        "everywhere.",
    )
    absent: tuple[Name, ...] | None = Field(
        None, description="Classes that do not occur: background everywhere."
    )
    specimen: VolumeRef | None = Field(
        None, description="Mask of the specimen; outside of it, where it is 0, nothing is known."
    )
    metric_masks: Annotated[tuple[VolumeRef, ...], Field(min_length=1)] | None = Field(
        None, description="In validation only voxels count at which none of these is 0."
    )
    masks: Volumes | None = Field(
        None, description='{"name": volume, ...}: 0 outside of what the mask marks.'
    )
    synapses: LocalPath | None = Field(
        None, description="Synaptic partners of the raw data; needed by heads that learn synapses."
    )
    phantom: PhantomSpec | None = None
    voxel_size: VoxelSize | None = Field(
        None,
        description="nm (z, y, x) that raw has: another one in its metadata is refused, and it holds "
        "where they say none.",
    )
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
    def has_classes(self) -> bool:
        """Tell whether classes are known."""
        return bool(self.classes or self.absent)

    @property
    def label_volumes(self) -> dict[str, str | VolumeInput]:
        """Return all label volumes by name; none of a phantom."""
        if self.labels is None:
            return {}
        return self.labels if isinstance(self.labels, dict) else {LABELS: self.labels}

    @model_validator(mode="after")
    def _arrays_or_phantom(self) -> Self:
        annotated = self.labels is not None or self.has_classes
        arrays = self.raw is not None and annotated
        if arrays == (self.phantom is not None) or (self.raw is None) != (not annotated):
            raise ValueError(
                "give either both `raw` and `labels` (or `classes` or `absent`), or `phantom`"
            )
        if self.phantom and (self.synapses or self.masks or self.normalization):
            raise ValueError(
                "a `phantom` brings its own synapses: leave `synapses` out, `masks` and "
                "`normalization` too"
            )
        if self.phantom and (self.specimen or self.metric_masks):
            raise ValueError("a `phantom` has no `specimen` and no `metric_masks`")
        if self.rois is not None and (any(self.begin) or self.end is not None):
            raise ValueError("give either `rois` (nm), or `begin` and `end` (voxels of raw)")
        return self

    @model_validator(mode="after")
    def _one_meaning_per_name(self) -> Self:
        if both := sorted((self.classes or {}).keys() & set(self.absent or ())):
            raise ValueError(f"{both} are in `classes` and in `absent`: keep one")
        named = {*(self.classes or {}), *(self.absent or ())}
        if both := sorted(named & self.label_volumes.keys()):
            raise ValueError(
                f"{both} are names of `labels`, which hold ids of objects, and of `classes` or "
                "`absent`, which hold known voxels: rename one of them"
            )
        if METRIC in (self.masks or {}):
            raise ValueError(f"the mask {METRIC!r} is made of `metric_masks`: name yours otherwise")
        return self
