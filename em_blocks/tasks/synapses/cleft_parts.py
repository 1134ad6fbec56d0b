"""Components of predicted synaptic clefts, found and numbered like the parts of a clean-up."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from em_blocks.errors import ConfigError
from em_blocks.geometry import Box
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.components.apply_parts import ApplyParts
from em_blocks.tasks.components.find_parts import FindParts
from em_blocks.volumes import Volume

Threshold = Annotated[float, Field(gt=0)]


class FindCleftParts(FindParts):
    """As `FindParts`, of the one id that voxels of at least `threshold` have."""

    kind: Literal["find_cleft_parts"]
    threshold: Threshold

    def check(self) -> None:
        check_prediction(self._labels)
        if self.mask is not None:
            raise ConfigError(
                "'mask' cannot be used here: a cleft that reaches into a masked block would fall into "
                "pieces. Leave the key out; empty blocks cost little."
            )

    def ids_in(self, box: Box) -> np.ndarray:
        return above(self._labels, super().ids_in(box), self.threshold)


class ApplyCleftParts(ApplyParts):
    """As `ApplyParts`, of the one id that voxels of at least `threshold` have."""

    kind: Literal["apply_cleft_parts"]
    threshold: Threshold

    def check(self) -> None:
        BlockwiseTask.check(self)

    def ids_in(self, box: Box) -> np.ndarray:
        return above(self._labels, super().ids_in(box), self.threshold)


def above(volume: Volume, values: np.ndarray, threshold: float) -> np.ndarray:
    """Return 1 where a prediction is at least `threshold`, else 0; uint8."""
    found = values >= threshold * (volume.scale or 1.0)
    return found.reshape(values.shape[-3:]).astype(np.uint8)


def check_prediction(volume: Volume) -> None:
    """Raise `ConfigError` unless a volume holds one value per voxel, and says what it means."""
    if volume.channels not in (None, 1):
        raise ConfigError(
            f"{volume.path} has {volume.channels} channels, but one value per voxel, how surely it is a "
            "synaptic cleft, is needed. Name the prediction of clefts."
        )
    if volume.scale is None and volume.dtype.kind != "f":
        raise ConfigError(
            f"{volume.path} holds {volume.dtype} without the attribute 'scale', the stored value that "
            "means 1. Without it a threshold means nothing; add it (255 for uint8)."
        )
