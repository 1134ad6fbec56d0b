"""Config of a setup (config.json), checked before anything is opened."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from em_blocks.by_kind import ByKind
from em_blocks.config import LocalPath, Shape3, StrictModel, VoxelSize
from em_blocks.errors import ConfigError
from em_blocks.models.data_config import Sources
from em_blocks.models.head import HEADS, Head
from em_blocks.models.joint import JOINT_SCORES, JointScore, usual_scores
from em_blocks.models.network import NETWORKS, Network
from em_blocks.models.normalization import Normalization
from em_blocks.models.sampling import Sampling
from em_blocks.models.schedules import Fraction, Schedule

NetworkConfig = Annotated[Network, ByKind(NETWORKS, default="unet")]
HeadConfig = Annotated[Head, ByKind(HEADS, default="affinities")]


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
    rotated: Fraction = Field(
        1.0, exclude_if=lambda share: share == 1.0,
        description="Share of the deformed samples that are rotated in plane, by any angle.",
    )
    scaled: Fraction = Field(
        1.0, exclude_if=lambda share: share == 1.0,
        description="Share of the deformed samples that are magnified.",
    )
    grey_of_sections: Fraction = Field(
        0.0, exclude_if=lambda share: share == 0.0,
        description="Share of samples in which `contrast`, `brightness` and `gamma` also change from "
        "section to section.",
    )
    missing_parts: Fraction = Field(
        0.0, exclude_if=lambda share: share == 0.0,
        description="Share of sections with a band of their mean grey value across them.",
    )
    missing_part_nm: PositiveFloat = Field(
        300.0, exclude_if=lambda width: width == 300.0, description="Width of such a band."
    )
    misaligned: Fraction = Field(
        0.0, exclude_if=lambda share: share == 0.0,
        description="Share of samples in which a section, or all from one on, are shifted in plane.",
    )
    misalignment_nm: PositiveFloat = Field(
        100.0, exclude_if=lambda largest: largest == 100.0,
        description="Largest shift along y and x; whole voxels are taken.",
    )
    removed_sections: Fraction = Field(
        0.0, exclude_if=lambda share: share == 0.0,
        description="Share of samples in which one or two sections in a row are lost.",
    )


class Retention(StrictModel):
    """Checkpoints that stay, besides best.safetensors and the newest states."""

    last: PositiveInt = Field(2, description="The newest ones.")
    every: PositiveInt | None = Field(
        None, description="Those whose iteration is a multiple of this; a multiple of checkpoint_every."
    )
    best: PositiveInt = Field(
        1, description="Number of best validations whose checkpoint stays; 1: best.safetensors alone."
    )

    def of(self, iterations: Collection[int]) -> set[int]:
        """Choose by number from the iterations of checkpoints."""
        multiples = {i for i in iterations if self.every is not None and i % self.every == 0}
        return {*sorted(iterations)[-self.last :], *multiples}

    def most(self, iterations: int) -> int:
        """Return the largest number of weights files that a training of `iterations` keeps."""
        best = self.best + 1 if self.best > 1 else 1  # best.safetensors, and what may become it
        return self.last + best + (iterations // self.every if self.every else 0)


class TrainingConfig(StrictModel):
    """Training of a setup's network."""

    sources: Sources = Field(description="Data sources, or a data config, a file that names them.")
    validation: Sources = Field(description="Of the same form, for the validation.")
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
    sampling: Sampling | None = Field(
        None,
        description="Which samples are used, instead of `min_labelled` and `reject_probability`.",
    )
    freeze: tuple[str, ...] = Field(
        (), exclude_if=lambda freeze: not freeze,
        description='Parameters that stay as they are: names of parameters or modules, such as "down" '
        'or "down.0", with * and ?.',
    )
    loaders: NonNegativeInt | None = Field(
        None,
        description="Processes that make the batches, which are the same for any number; 0: a thread "
        "of the training. Default: one less than the cores, 1 to 8.",
    )
    precision: Literal["bf16", "fp16", "fp32"] = Field(
        "bf16", description="Of the network; fp16 for GPUs without bf16, with scaled losses."
    )
    validate_every: PositiveInt = 250
    patience: PositiveInt | None = Field(
        None, exclude_if=lambda patience: patience is None,
        description="The training ends early after this many validations without a better `score`.",
    )
    checkpoint_every: PositiveInt = 250
    keep: Retention = Field(
        Retention(), exclude_if=lambda keep: keep == Retention(),
        description="Which checkpoints stay.",
    )
    snapshot_every: NonNegativeInt = Field(
        0,
        description="Iterations between snapshots: a sample with its targets and predictions, in "
        "training/snapshots; 0 for none.",
    )
    score: str = Field(
        description="Validation score that chooses the best checkpoint; of errors, the lowest wins."
    )

    @property
    def used_sampling(self) -> Sampling:
        """Which samples are used, whichever keys say it."""
        return self.sampling or Sampling(labelled=self.min_labelled, sites=self.reject_probability)

    @model_validator(mode="after")
    def _kept_are_saved(self) -> Self:
        if self.keep.every is not None and self.keep.every % self.checkpoint_every:
            raise ValueError(
                f"`keep.every` is {self.keep.every}, but a checkpoint is saved every "
                f"{self.checkpoint_every} iterations: give a multiple of `checkpoint_every`"
            )
        return self

    @model_validator(mode="after")
    def _one_sampling(self) -> Self:
        if self.sampling and (self.min_labelled, self.reject_probability) != (0.5, 0.0):
            raise ValueError(
                "`sampling` stands for `min_labelled` and `reject_probability`: write them as its "
                "`labelled` and `sites`"
            )
        return self


class SetupConfig(StrictModel):
    """config.json of a folder in setups/."""

    name: str
    voxel_size: VoxelSize = Field(description="nm per voxel the network was made for (z, y, x).")
    network: NetworkConfig
    heads: dict[str, HeadConfig] = Field(min_length=1)
    scores: tuple[Annotated[JointScore, ByKind(JOINT_SCORES)], ...] | None = Field(
        None,
        description="Validation scores of several heads together. Default: those of partners where "
        "there are an indicator and direction vectors, of instances where there are a foreground and a "
        "contour.",
    )
    normalization: Normalization
    intensities: tuple[float, float] | None = Field(
        None,
        description="Lowest and highest raw intensity of the training data. Default: what "
        "`normalization` maps to -1 and 1.",
    )
    equalized: dict[str, Any] | None = Field(
        None, exclude_if=lambda equalized: equalized is None,
        description="How raw was equalised that the network learns from: the attribute `equalized` of "
        "its volumes. Other raw is refused in training, and warned of in prediction. Default: unknown.",
    )
    tile_shape: Shape3 = Field(description="Default output tile of one network pass, voxels.")
    training: TrainingConfig | None = Field(
        None, description="Default: the setup is only predicted with."
    )

    @model_validator(mode="after")
    def _trainable(self) -> Self:
        if self.training is not None and not self.network.trainable:
            raise ValueError(
                f"a network of the kind {self.network.kind!r} cannot be trained here: leave "
                "`training` out, the setup is predicted with as it is"
            )
        return self

    @model_validator(mode="after")
    def _heads_among_each_other(self) -> Self:
        for name, head in self.heads.items():
            try:
                head.check_among(self.heads)
            except ValueError as error:
                raise ValueError(f"the head {name!r}: {error}") from error
        return self

    @model_validator(mode="after")
    def _scores_of_heads(self) -> Self:
        for score in self.scores or ():
            if missing := [name for name in score.head_names() if name not in self.heads]:
                raise ValueError(
                    f"the score {score.kind!r} reads the heads {missing}, but there are "
                    f"{list(self.heads)}"
                )
        return self

    def to_train(self) -> TrainingConfig:
        """Return `training`.

        Raises
        ------
        ConfigError
            If the setup says nothing of it.
        """
        if self.training is None:
            raise ConfigError(
                f"The setup {self.name!r} has no key `training`, so it can be predicted with but not "
                "trained: it was imported, or its network was trained elsewhere. Add `training` to "
                "its config.json (docs/training.md); the weights to begin with are `training.initial`."
            )
        return self.training

    def joint_scores(self) -> tuple[JointScore, ...]:
        """Return the scores of several heads together."""
        return usual_scores(self.heads) if self.scores is None else self.scores
