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
from em_blocks.models.schedules import Fraction, Schedule
from em_blocks.models.sources import Corner, DataSource

Shift = tuple[int, int, int]


class NetworkConfig(StrictModel):
    """Hyper-parameters of a valid U-Net, finest level first."""

    features: tuple[PositiveInt, ...] = Field(description="Channels of every level.")
    kernels: tuple[tuple[Shape3, ...], ...] = Field(
        description="Convolution kernels of every level, voxels (z, y, x)."
    )
    pooling: tuple[Shape3, ...] = Field(description="Pooling between consecutive levels.")
    decoders: Literal["shared", "separate"] = Field(
        "shared", description="One decoder for all heads, or one for each behind the same encoder."
    )
    rectifier: Literal["relu", "leaky_relu"] = Field(
        "relu", description="After every convolution; a leaky one cannot die in narrow layers."
    )


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


class IndicatorHead(StrictModel):
    """Where postsynaptic sites are: 1 in a small ball around every site, 0 elsewhere."""

    kind: Literal["indicator"]
    channels: Literal[1] = 1
    activation: Literal["sigmoid"] = "sigmoid"
    radius_nm: PositiveFloat = Field(10.0, description="Of the ball around a site, nm.")
    loss: Literal["cross_entropy", "mse", "focal"] = "cross_entropy"
    gamma: NonNegativeFloat = Field(2.0, description="Exponent of the focal loss.")
    rarest: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.0007,
        description="Both classes of a batch weigh the same, but a class rarer than this fraction "
        "weighs as if it had it.",
    )
    balance: Schedule = Field(
        1.0, description="How far classes are balanced: 1 fully, 0 not at all; may change."
    )
    weight: PositiveFloat = Field(1.0, description="Weight of the loss among those of all heads.")


class DirectionVectorHead(StrictModel):
    """Offset from around a postsynaptic site to its presynaptic partner."""

    kind: Literal["direction_vectors"]
    channels: Literal[3] = 3
    activation: Literal["identity"] = "identity"
    radius_nm: PositiveFloat = Field(
        100.0, description="Vectors are learnt in balls of this radius around sites, nm."
    )
    unit_nm: PositiveFloat = Field(
        100.0, description="Length that the network calls 1; predictions are stored in nm."
    )
    weight: PositiveFloat = Field(1.0, description="Weight of the loss among those of all heads.")


def _kind(head: Any) -> str:
    """The kind of a head; affinities unless it says another."""
    if isinstance(head, dict):
        return head.get("kind", "affinities")
    return getattr(head, "kind", "affinities")


HeadConfig = Annotated[
    Annotated[AffinityHead, Tag("affinities")]
    | Annotated[LsdHead, Tag("lsd")]
    | Annotated[IndicatorHead, Tag("indicator")]
    | Annotated[DirectionVectorHead, Tag("direction_vectors")],
    Discriminator(_kind),
]


class Normalization(StrictModel):
    """The network sees ``raw * scale + shift``."""

    scale: float
    shift: float


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
    reject_probability: Schedule = Field(
        0.0,
        description="Share of the samples that must hold a postsynaptic site; others are drawn again.",
    )
    precision: Literal["bf16", "fp32"] = "bf16"
    validate_every: PositiveInt = 250
    checkpoint_every: PositiveInt = 250
    snapshot_every: NonNegativeInt = Field(
        0,
        description="Iterations between snapshots: a sample with its targets and predictions, in "
        "training/snapshots; 0 for none.",
    )
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
    intensities: tuple[float, float] | None = Field(
        None,
        description="Lowest and highest raw intensity of the training data. Default: what "
        "`normalization` maps to -1 and 1.",
    )
    tile_shape: Shape3 = Field(description="Default output tile of one network pass, voxels.")
    training: TrainingConfig
