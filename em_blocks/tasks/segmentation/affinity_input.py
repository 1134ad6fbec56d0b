"""Affinity volumes as inputs of tasks: opened, checked, brought into one form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box
from em_blocks.kernels.segmentation.neighborhood import (
    FULL,
    Neighborhood,
    OutOfRangeError,
    quantised,
    to_previous,
)
from em_blocks.volumes import Volume

KNOWN = {np.dtype("uint8"): 255, np.dtype("uint16"): FULL}
"""What an integer means where a volume has no scale: the stored value of affinity 1."""

Shifts = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class AffinityInput:
    """An affinity volume and the pairs of voxels that its channels join."""

    volume: Volume
    neighborhood: Neighborhood

    @classmethod
    def open(cls, path: str | VolumeInput, shifts: Shifts | None) -> AffinityInput:
        """Open a volume; its attribute ``neighborhood`` is used where `shifts` is not given.

        Raises
        ------
        ConfigError
            If the neighborhood is missing, contradicts the volume, or does not fit its channels.
        """
        volume = Volume.open(path)
        stored = _stored_shifts(volume)
        if shifts is None and stored is None:
            raise ConfigError(
                f"{path} does not say which voxels its channels join, and the key 'neighborhood' is "
                "missing. Give the shift of every channel, voxels (z, y, x), for example "
                "[[-1, 0, 0], [0, -1, 0], [0, 0, -1]]."
            )
        if shifts is not None and stored is not None and shifts != stored:
            raise ConfigError(
                f"The key 'neighborhood' is {shifts}, but {path} was written with {stored}. With the "
                "wrong one the affinities of other voxels would be used; leave the key out."
            )
        shifts = shifts or stored
        if (volume.channels or 1) != len(shifts) or volume.channels is None:
            raise ConfigError(
                f"{path} has {volume.channels or 'no'} channels, but the neighborhood has {len(shifts)} "
                "shifts: one channel each is needed, or affinities would be mistaken for those of other "
                "voxels. Correct 'neighborhood', or choose the volume of affinities."
            )
        try:
            found = cls(volume, Neighborhood(shifts))
            # Of no voxels, so that what only reading would notice is said before any block.
            to_previous(np.zeros((len(shifts), 0, 0, 0), np.uint16), found.neighborhood)
        except ValueError as error:
            raise ConfigError(
                f"The neighborhood of {path} cannot be used: {error}. Fragments and edges need to know "
                "which two voxels every affinity joins; correct 'neighborhood', or choose other ones."
            ) from error
        return found

    def check_scale(self) -> None:
        """Raise `ConfigError` unless stored values can be affinities.

        A sample is looked at: the first, middle and last chunk.
        """
        dtype = self.volume.dtype
        if dtype.kind not in "uif" or (dtype.kind in "ui" and dtype.itemsize > 4):
            raise ConfigError(
                f"{self.volume.path} is {dtype}; affinities are uint8 (255 is 1), uint16 (65535 is 1), "
                "float in 0..1, or integers with the attribute 'scale'. Convert it."
            )
        if dtype not in KNOWN and dtype.kind in "ui" and self.volume.scale is None:
            raise ConfigError(
                f"{self.volume.path} is {dtype}; affinities are uint8 (255 is 1), uint16 (65535 is 1) "
                "or float in 0..1, and what another integer means is not known. Write the attribute "
                "'scale' (stored value of affinity 1), as `em-blocks predict` does."
            )
        box, chunk = self.volume.box, self.volume.chunk_shape
        for share in (0.0, 0.5, 1.0):
            begin = (int(share * (n - 1)) // c * c for n, c in zip(box.shape, chunk, strict=True))
            self._read(Box(tuple(begin), chunk).intersect(box))

    def read(self, box: Box) -> np.ndarray:
        """Affinities to the voxels before, in (c, z, y, x) uint16; 0 outside of the volume.

        Correct where the whole pair lies in `box`.
        """
        return to_previous(self._read(box), self.neighborhood)

    def identity(self) -> dict:
        """Return everything that decides the values, as JSON."""
        return {
            "fingerprint": self.volume.attributes.get("fingerprint"),
            "shape": list(self.volume.shape), "dtype": str(self.volume.dtype),
            "neighborhood": [list(shift) for shift in self.neighborhood.shifts],
        }

    def _read(self, box: Box) -> np.ndarray:
        scale = self.volume.scale
        try:
            if scale is None or scale == KNOWN.get(self.volume.dtype):
                return quantised(self.volume.read(box, outside="constant"))
            return quantised(self.volume.read_scaled(box, outside="constant"))
        except OutOfRangeError as error:
            raise VolumeError(
                f"{self.volume.path} cannot be used as affinities: they must lie in 0..1, got "
                f"{error.value:.4g} {self._place(error.index, box)}"
                f"{'' if scale is None else f' (scale {scale:g})'}. Weaker and stronger edges would be "
                "told apart wrongly; store affinities in 0..1, or write the attribute 'scale' (stored "
                "value of affinity 1)."
            ) from error

    def _place(self, index: tuple[int, ...], box: Box) -> str:
        """Describe the position of a value of a box in words."""
        voxel = tuple(o + i for o, i in zip(box.offset, index[1:], strict=True))
        corner = self.volume.frame.to_roi(Box(voxel, (1, 1, 1))).offset
        return f"in channel {index[0]} at voxel {voxel}, {tuple(round(c, 3) for c in corner)} nm (zyx)"


def _stored_shifts(volume: Volume) -> Shifts | None:
    """The attribute ``neighborhood``; None where others mean something else by the name."""
    values = volume.attributes.get("neighborhood")
    try:
        shifts = tuple(tuple(shift) for shift in values)
    except TypeError:
        return None
    integers = all(type(step) is int for shift in shifts for step in shift)
    return shifts if shifts and integers and {len(shift) for shift in shifts} == {3} else None
