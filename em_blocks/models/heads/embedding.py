"""Embedding: vectors that are alike within an instance and differ between instances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import PositiveInt

from em_blocks.kernels.instances.embeddings import separation
from em_blocks.models.head import Better, Storage
from em_blocks.models.heads.instances import InstanceHead
from em_blocks.models.truth import Truth
from em_blocks.nets.embedding_losses import Discriminative

_NO_RANGE = (
    'has a fixed range, but embeddings have none: those beyond it would become alike. Use "float16" '
    'or "float32".'
)


class EmbeddingHead(InstanceHead):
    """Embedding: vectors that are alike within an instance and differ between instances."""

    has_mean: ClassVar[bool] = False

    kind: Literal["embedding"]
    channels: PositiveInt = 16  # type: ignore[assignment]
    activation: Literal["identity"] = "identity"

    @property
    def default_loss(self) -> Discriminative:
        return Discriminative()

    def targets(self, truth: Truth) -> dict[str, np.ndarray]:
        """Number the instances of a sample.

        Returns
        -------
        dict of (z, y, x) arrays
            "target", int32: instances from 1, in the order of their ids, and 0 in the background;
            "mask", uint8.
        """
        labels = truth.labels[self.labels]
        ids, numbers = np.unique(labels, return_inverse=True)
        numbers = numbers.reshape(labels.shape) + (0 if ids[0] == 0 else 1)
        return {"target": numbers.astype(np.int32), "mask": self.known(truth).astype(np.uint8)}

    def score_names(self) -> dict[str, Better]:
        return {"own_share": "higher", "spread": "lower", "gap": "neither"}

    def scores(self, predicted: np.ndarray, truth: Truth) -> dict[str, float]:
        """Measure how well the instances are told apart, wherever they are in the box."""
        labels = np.where(self.known(truth), truth.labels[self.labels], 0)
        return separation(predicted, labels)._asdict()

    def mistakes(
        self, predicted: np.ndarray, made: Mapping[str, np.ndarray], grey: np.ndarray
    ) -> np.ndarray:
        """Show the section itself: numbers of instances are no embeddings to compare it with."""
        return self.picture(predicted)

    @property
    def picture_range(self) -> tuple[float, float]:
        return -3.0, 3.0

    @property
    def storage(self) -> Storage:
        return Storage(
            dtype="float16", scales={}, attributes={"embedding": True},
            unfit={"uint8": _NO_RANGE, "int8": _NO_RANGE},
        )
