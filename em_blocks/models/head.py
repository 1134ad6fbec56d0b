"""The contract of heads: all that training and prediction ask of one output of a network.

A head is its config, as a task is. A new one is a subclass of `Head` in a file of its own and a line
in `HEADS`; outside of em_blocks, an entry point of the group "em_blocks.heads".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from em_blocks.by_kind import ByKind
from em_blocks.config import StrictModel, VoxelSize
from em_blocks.geometry import Triple
from em_blocks.kernels.transforms.symmetry import Part, Symmetry, undo_all
from em_blocks.models.truth import LABELS, Truth
from em_blocks.nets.losses import LOSSES, Loss
from em_blocks.nets.prototypes import Nearest
from em_blocks.nets.unet import ACTIVATIONS
from em_blocks.plugins import Registry

Better = Literal["higher", "lower", "neither"]
"""The better values of a score; "neither" cannot choose a checkpoint."""

LossConfig = Annotated[Loss, ByKind(LOSSES)]


@dataclass(frozen=True)
class Storage:
    """Storage of the predictions of a head.

    Attributes
    ----------
    dtype : str
        Unless a config asks for another one.
    scales : mapping of dtype to float
        Stored = prediction * scale; dtypes without one store the prediction itself.
    attributes : dict
        Written to the metadata of the volume, for its readers.
    unfit : mapping of dtype to str
        Dtypes that cannot hold the predictions: what they lack, what would be lost, what to use.
    """

    dtype: str = "uint8"
    scales: Mapping[str, float] = field(default_factory=lambda: {"uint8": 255.0, "int8": 127.0})
    attributes: dict[str, Any] = field(default_factory=dict)
    unfit: Mapping[str, str] = field(default_factory=dict)


class Head(StrictModel, ABC):
    """One output of a network. Arrays have the axes (channel, z, y, x).

    Attributes
    ----------
    arrays : tuple of str
        Keys of what `targets` returns.
    has_mean : bool
        Whether predictions of mirrored raw, brought back by `inverse`, may be averaged.
    """

    arrays: ClassVar[tuple[str, ...]] = ("target", "mask")
    has_mean: ClassVar[bool] = True

    kind: str
    channels: PositiveInt
    activation: Literal["sigmoid", "identity", "tanh", "softmax"] = "sigmoid"
    loss: LossConfig | None = Field(
        None, exclude_if=lambda loss: loss is None, description="Default: that of the kind of head."
    )
    weight: PositiveFloat = Field(1.0, description="Weight of the loss among those of all heads.")

    @property
    def nearest(self) -> Nearest | None:
        """Say what the prototypes are made of whose nearest the output is; None: there are none."""
        return None

    def check_among(self, heads: Mapping[str, Head]) -> None:
        """Raise `ValueError` if it cannot be a head of a network beside the others."""

    # -- training ----------------------------------------------------------------------

    @property
    def needs(self) -> frozenset[str]:
        """Name the entries of a `Truth` that are read, as "labels/NAME" or "points/NAME"."""
        return frozenset({f"labels/{LABELS}"})

    def reach(self, voxel_size: VoxelSize) -> Triple:
        """Return the voxels of truth that targets need around their own, per side (z, y, x)."""
        return (0, 0, 0)

    @abstractmethod
    def targets(self, truth: Truth) -> dict[str, np.ndarray]:
        """Compute `arrays`: what the head should say, and where that is known.

        Returns
        -------
        dict of (..., z, y, x) arrays
            Of the shape of the truth, or smaller by `reach` on every side.
        """

    @property
    @abstractmethod
    def default_loss(self) -> Loss:
        """The loss unless `loss` is given."""

    def objective(self, logits: Tensor, batch: Mapping[str, Tensor], iteration: int) -> Tensor:
        """Compute the weighted loss of a batch.

        Parameters
        ----------
        logits : (n, c, z, y, x) tensor
            Network output before its activation.
        batch : mapping of `arrays` to (n, ..., z, y, x) tensors
        iteration : int
            From 0.
        """
        loss = self.loss or self.default_loss
        activate = ACTIVATIONS[self.activation]
        return self.weight * loss(logits, batch["target"], batch["mask"], activate=activate)

    # -- validation ----------------------------------------------------------------------

    @abstractmethod
    def score_names(self) -> dict[str, Better]:
        """Name all that `scores` returns, whatever is predicted."""

    @abstractmethod
    def scores(self, predicted: np.ndarray, truth: Truth) -> dict[str, float]:
        """Score a prediction, activated and in the unit of the head; nan where nothing is known.

        Parameters
        ----------
        predicted : (c, z, y, x) float32 array
            Of the shape of the truth.
        """

    def picture(self, values: np.ndarray) -> np.ndarray:
        """Show a section (y, x) or (c, y, x) of targets or predictions as (y, x, 3) uint8.

        The first three channels are colours; with fewer, the first one is grey.
        """
        from em_blocks.kernels.plots.sections import grey_picture

        channels = values.reshape(-1, *values.shape[-2:])
        low, high = self.picture_range
        grey = [grey_picture(channel, low=low, high=high)[..., 0] for channel in channels[:3]]
        return np.stack(grey if len(grey) == 3 else grey[:1] * 3, axis=-1)

    def overlay(self, values: np.ndarray, grey: np.ndarray) -> np.ndarray:
        """Show a section as `picture` does, over raw where the head can; (y, x, 3) uint8.

        Parameters
        ----------
        values : (y, x) or (c, y, x) array
        grey : (y, x) array
            Raw of the section, from black (0) to white (1).
        """
        return self.picture(values)

    def mistakes(
        self, predicted: np.ndarray, made: Mapping[str, np.ndarray], grey: np.ndarray
    ) -> np.ndarray:
        """Show where a section is predicted otherwise than its targets; (y, x, 3) uint8.

        Parameters
        ----------
        predicted : (c, y, x) array
        made : mapping of "target" and "mask" to (..., y, x) arrays
        grey : (y, x) array
            Raw, as of `overlay`.
        """
        return self.picture(np.abs(predicted - made["target"]) * (made["mask"] > 0))

    @property
    def picture_range(self) -> tuple[float, float]:
        """Values that pictures show as black and as full colour."""
        return 0.0, 1.0

    # -- prediction ----------------------------------------------------------------------

    @property
    def storage(self) -> Storage:
        """Say how predictions are stored."""
        return Storage()

    def inverse(self, values: np.ndarray, symmetry: Symmetry) -> Iterable[Part]:
        """Bring the prediction (c, z, y, x) of a transformed volume back to the original one."""
        return undo_all(values, symmetry)


HEADS = Registry(
    "em_blocks.heads",
    {
        "affinities": "em_blocks.models.heads.affinities:AffinityHead",
        "lsd": "em_blocks.models.heads.lsd:LsdHead",
        "indicator": "em_blocks.models.heads.indicator:IndicatorHead",
        "direction_vectors": "em_blocks.models.heads.direction_vectors:DirectionVectorHead",
        "classes": "em_blocks.models.heads.classes:ClassesHead",
        "foreground": "em_blocks.models.heads.foreground:ForegroundHead",
        "contour": "em_blocks.models.heads.contour:ContourHead",
        "skeleton_distance": "em_blocks.models.heads.skeleton_distance:SkeletonDistanceHead",
        "signed_distance": "em_blocks.models.heads.signed_distance:SignedDistanceHead",
        "embedding": "em_blocks.models.heads.embedding:EmbeddingHead",
        "prototypes": "em_blocks.models.heads.prototypes:PrototypesHead",
    },
    base="em_blocks.models.head:Head",
)
