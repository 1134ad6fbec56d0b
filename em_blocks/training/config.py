"""What a setup's config.json may say, checked before anything is opened."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from em_blocks.config import LocalPath, Shape3, StrictModel, VoxelSize

Shift = tuple[int, int, int]
Corner = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]
Fraction = Annotated[float, Field(ge=0, le=1)]


class NetworkConfig(StrictModel):
    """Hyper-parameters of a valid U-Net, finest level first."""

    features: tuple[PositiveInt, ...] = Field(description="Channels of every level.")
    kernels: tuple[tuple[Shape3, ...], ...] = Field(
        description="Convolution kernels of every level, voxels (z, y, x)."
    )
    pooling: tuple[Shape3, ...] = Field(description="Pooling between consecutive levels.")


class AffinityHead(StrictModel):
    """Affinities to the partners of a neighborhood."""

    kind: Literal["affinities"] = "affinities"
    channels: PositiveInt
    activation: Literal["sigmoid"] = "sigmoid"
    neighborhood: tuple[Shift, ...] = Field(
        description="Shift to the partner of every channel, voxels (z, y, x)."
    )
    boundary: Corner = Field(
        (0, 0, 0), description="Voxels of each object's rim that count as membrane (z, y, x)."
    )

    @model_validator(mode="after")
    def _one_channel_per_shift(self) -> Self:
        if self.channels != len(self.neighborhood):
            raise ValueError(
                f"channels is {self.channels}, but the neighborhood has "
                f"{len(self.neighborhood)} shifts: one channel each is needed"
            )
        return self


class LsdHead(StrictModel):
    """Local shape descriptors: a second task, from which affinities learn what neurites look like."""

    kind: Literal["lsd"]
    channels: Literal[10] = 10
    activation: Literal["sigmoid"] = "sigmoid"
    sigma_nm: PositiveFloat = Field(
        80.0, description="Standard deviation of the window that is described, nm."
    )
    weight: PositiveFloat = Field(1.0, description="Weight of the loss among those of all heads.")


def _kind(head: Any) -> str:
    """The kind of a head; affinities unless it says another."""
    if isinstance(head, dict):
        return head.get("kind", "affinities")
    return getattr(head, "kind", "affinities")


HeadConfig = Annotated[
    Annotated[AffinityHead, Tag("affinities")] | Annotated[LsdHead, Tag("lsd")],
    Discriminator(_kind),
]


class Normalization(StrictModel):
    """The network sees ``raw * scale + shift``."""

    scale: float
    shift: float


class PhantomSpec(StrictModel):
    """A volume from the generator instead of from disk."""

    shape: Shape3
    seed: NonNegativeInt
    neurite_nm: PositiveFloat = 400.0


class DataSource(StrictModel):
    """Raw data with labels: two zarr arrays, or a phantom."""

    raw: LocalPath | None = None
    labels: LocalPath | None = None
    phantom: PhantomSpec | None = None
    begin: Corner = Field((0, 0, 0), description="First voxel used (z, y, x).")
    end: Shape3 | None = Field(None, description="End of the used voxels, excluded; default all.")
    weight: PositiveFloat = Field(1.0, description="Relative share of the samples.")

    @model_validator(mode="after")
    def _arrays_or_phantom(self) -> Self:
        arrays = self.raw is not None and self.labels is not None
        if arrays == (self.phantom is not None) or (self.raw is None) != (self.labels is None):
            raise ValueError("give either both `raw` and `labels`, or `phantom`")
        return self


class AugmentConfig(StrictModel):
    """Random changes of the samples. Lengths in nm, intensities on a 0..1 scale."""

    control_point_nm: VoxelSize = Field(description="Spacing of elastic control points.")
    jitter_nm: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat]
    elastic: Fraction = Field(0.7, description="Share of samples deformed and rotated in plane.")
    scale: Fraction = Field(0.1, description="Deformed samples are magnified by 1 +- this.")
    gamma: NonNegativeFloat = Field(
        0.0, description="Intensities are raised to powers of exp(-this) to exp(this)."
    )
    contrast: Fraction = Field(0.3, description="Contrast is scaled by 1 +- this.")
    brightness: Fraction = Field(0.15, description="Brightness is shifted by +- this.")
    noise: NonNegativeFloat = Field(0.03, description="Standard deviation of added noise.")
    blur: NonNegativeFloat = Field(0.8, description="Largest Gaussian sigma, finest voxels.")
    missing_sections: Fraction = Field(0.0, description="Share of sections without content.")
    faint_sections: Fraction = Field(0.0, description="Share of sections of low contrast.")


class TrainingConfig(StrictModel):
    """How a setup's network is trained."""

    sources: tuple[DataSource, ...] = Field(min_length=1)
    validation: tuple[DataSource, ...] = Field(min_length=1)
    augment: AugmentConfig
    output_shape: Shape3 = Field(description="Network output of one sample, voxels (z, y, x).")
    batch_size: PositiveInt = 1
    iterations: PositiveInt
    initial: LocalPath | None = Field(
        None,
        description="Weights to begin with. Heads that they lack begin with random weights, "
        "convolutions as identities; default: all random.",
    )
    seed: NonNegativeInt
    learning_rate: PositiveFloat = 1e-3
    warmup: NonNegativeInt = Field(200, description="Iterations of linear warm-up.")
    weight_decay: NonNegativeFloat = 1e-5
    gradient_clip: PositiveFloat = Field(1.0, description="Largest norm of the gradient.")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.995, description="Decay of the averaged weights, which are validated and kept."
    )
    min_labelled: Fraction = Field(
        0.5, description="Samples with a smaller labelled share are drawn again."
    )
    precision: Literal["bf16", "fp32"] = "bf16"
    validate_every: PositiveInt = 250
    checkpoint_every: PositiveInt = 250
    score: str = Field(
        description="Validation score that chooses the best checkpoint; higher wins."
    )


class SetupConfig(StrictModel):
    """config.json of a folder in setups/."""

    name: str
    voxel_size: VoxelSize = Field(description="nm per voxel the network was made for (z, y, x).")
    network: NetworkConfig
    heads: dict[str, HeadConfig] = Field(min_length=1)
    normalization: Normalization
    tile_shape: Shape3 = Field(description="Default output tile of one network pass, voxels.")
    training: TrainingConfig
