"""Volumes in a format of em_blocks (zarr, N5, precomputed) as sources: copies in another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

import numpy as np
from pydantic import Field

from em_blocks.config import StorePath, VolumeInput, VolumeRef
from em_blocks.errors import VolumeError
from em_blocks.geometry import Box
from em_blocks.volumes.imports.arrays import number_type
from em_blocks.volumes.imports.sources import (
    KEPT,
    ReadBox,
    Source,
    SourceHeader,
    StoredAxes,
)
from em_blocks.volumes.volume import Volume

_ANYWHERE = {"voxel_size": (1.0, 1.0, 1.0), "offset": (0.0, 0.0, 0.0)}


class StoredVolume(Source):
    """An array of zarr v2 or v3, N5 or precomputed, local or at a URL; a single channel is dropped.

    What the copy means is kept: scale, neighborhood and the like.
    """

    type: Literal["volume"]
    path: StorePath = Field(description="Path or URL of the array.")
    axes: StoredAxes = None

    def header(self, told: VolumeInput | None = None) -> SourceHeader:
        """Read shape and dtype, and the place as the array, or the config, states it."""
        volume = Volume.open(self._ref(told))
        return SourceHeader(
            volume.shape, _dtype(volume), volume.voxel_size, volume.offset, volume.piece_shape,
            None if volume.channels == 1 else volume.channels,
        )

    def check(self) -> None:
        """Raise an `EmBlocksError` unless it is a volume of numbers."""
        _dtype(self._values())

    def identity(self) -> dict:
        """Return the fingerprint of the run that made it; what others made is known by `volumes`."""
        return {"fingerprint": self._values().attributes.get("fingerprint")}

    @contextmanager
    def open(self) -> Iterator[ReadBox]:
        """Open the array; yield a function that reads a box."""
        volume = self._values()
        yield partial(_read, volume, _dtype(volume))

    def attributes(self) -> dict:
        found = self._values().attributes
        return {name: found[name] for name in KEPT if name in found}

    def volumes(self, told: VolumeInput) -> dict[str, VolumeRef]:
        ref = self._ref(told)
        return {"source": ref.path if ref == VolumeInput(path=ref.path) else ref}

    def _ref(self, told: VolumeInput | None) -> VolumeInput:
        place = {} if told is None else {"voxel_size": told.voxel_size, "offset": told.offset}
        return VolumeInput(path=self.path, axes=self.axes, **place)

    def _values(self) -> Volume:
        """Open the array for its values; where it does not state its place, that makes no difference."""
        try:
            return Volume.open(self._ref(None))
        except VolumeError:
            return Volume.open(VolumeInput(path=self.path, axes=self.axes, **_ANYWHERE))


def _dtype(volume: Volume) -> np.dtype:
    return number_type(volume.dtype, volume.path, volume.shape)


def _read(volume: Volume, dtype: np.dtype, box: Box) -> np.ndarray:
    values = volume.read(box)
    return (values[0] if volume.channels == 1 else values).astype(dtype, copy=False)
