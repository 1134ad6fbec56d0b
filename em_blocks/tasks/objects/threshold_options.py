"""The part of a config that says which probabilities count, and from which value on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from em_blocks.config import VolumeRef
from em_blocks.tasks.base import RunConfig

Probability = Annotated[float, Field(gt=0, le=1)]
Channel = int | str
Thresholds = Probability | dict[str, Probability]

MOST_CLASSES = 255


class ThresholdOptions(RunConfig):
    """Keys of all runs that put a threshold on probabilities."""

    kind: str
    prediction: VolumeRef = Field(
        description="Probabilities: uint8, uint16 with the attribute scale, or float in 0..1; "
        "path.zarr/dataset, file.h5:dataset, or a file .npy, .tif, .mrc, .nii or .xz."
    )
    channels: tuple[Channel, ...] | None = Field(
        None, min_length=1, max_length=MOST_CLASSES,
        description="Channels by number or class. Default: all classes.",
    )
    threshold: Thresholds = Field(
        0.5, description='From this probability on a voxel is of a class; {"class": threshold, ...} for '
        "one per class."
    )
