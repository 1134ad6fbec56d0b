"""A volume as a conversion finds it: its header, and a way to read it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from em_blocks.config import StrictModel
from em_blocks.errors import ConfigError
from em_blocks.geometry import Box, Frame, Triple
from em_blocks.volumes import Volume
from em_blocks.volumes.metadata.attributes import MEANINGS


@dataclass(frozen=True)
class Image:
    """What is stored in a volume, or would be after some conversions.

    Attributes
    ----------
    name : str
        What messages call it.
    frame : Frame
    shape : (3,) int
        Voxels (z, y, x).
    dtype : numpy dtype
    channels : int or None
    attributes : dict
        That say what the values mean.
    read : function of a box
        Returns its values, (z, y, x) or (c, z, y, x).
    """

    name: str
    frame: Frame
    shape: Triple
    dtype: np.dtype
    channels: int | None
    attributes: dict
    read: Callable[[Box], np.ndarray]

    @classmethod
    def of(cls, volume: Volume) -> Self:
        """Return a stored volume."""
        kept = {name: volume.attributes[name] for name in (*MEANINGS, "labels")
                if name in volume.attributes}
        return cls(volume.path, volume.frame, volume.shape, volume.dtype, volume.channels, kept,
                   volume.read)

    def changed(self, **values: Any) -> Self:
        """Return the image with some of its attributes replaced."""
        return replace(self, **values)

    @property
    def box(self) -> Box:
        """All voxels."""
        return Box((0, 0, 0), self.shape)

    def one_value_per_voxel(self, kind: str) -> None:
        """Raise `ConfigError` if there are channels."""
        if self.channels is not None:
            raise ConfigError(
                f'The conversion "{kind}" takes one value per voxel, but {self.name} has '
                f'{self.channels} channels at that point. Convert colours first, by "rgb_to_grey" or '
                '"rgb_to_ids".'
            )


class Conversion(StrictModel, ABC):
    """One step of `em-blocks convert`; a subclass has a field ``kind: Literal[...]``."""

    @abstractmethod
    def applied(self, image: Image) -> Image:
        """Return what becomes of an image.

        Raises
        ------
        ConfigError
            If the conversion does not fit it.
        """

    def reach(self, image: Image) -> Triple:
        """Return how many voxels (z, y, x) from its own place a voxel's value may come."""
        return (0, 0, 0)
