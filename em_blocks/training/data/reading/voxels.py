"""Voxels that are read as they are needed, whatever stores them."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Protocol

import numpy as np

from em_blocks.config import VolumeInput, path_of
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box, Frame, Nm3, Triple
from em_blocks.training.data.reading.placement import Placement
from em_blocks.volumes import Volume
from em_blocks.volumes.imports.sources import ReadBox
from em_blocks.volumes.labels import open_labels, placed
from em_blocks.volumes.stores.ledger import require_complete

Slices = tuple[slice, slice, slice]


class Voxels(Protocol):
    """Voxels (z, y, x) that are sliced: a numpy array, or `StoredVoxels`."""

    @property
    def shape(self) -> Triple: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, where: Slices) -> np.ndarray: ...


class StoredVoxels:
    """Voxels of a stored volume, sliced as an array; a slice is read when it is asked for.

    Parameters
    ----------
    read : function
        Reads a box of voxels of the volume.
    path : str
    shape, chunk_shape : (3,) int
        Voxels (z, y, x) of the volume, and those that are best read together.
    dtype : numpy dtype
        Of the slices: what is read is converted.
    frame : Frame
        Where the volume lies.
    signed : bool
        Whether values below 0 are stored, which `read` may refuse.
    files : ExitStack, optional
        Files that are open as long as the voxels are used.
    """

    def __init__(
        self, read: ReadBox, *, path: str, shape: Triple, chunk_shape: Triple,
        dtype: np.dtype | str, frame: Frame, signed: bool = False, files: ExitStack | None = None,
    ):
        self._read, self._files = read, files
        self.path, self.shape, self.chunk_shape = path, shape, chunk_shape
        self.dtype, self.frame, self.signed = np.dtype(dtype), frame, signed

    def __getitem__(self, where: Slices) -> np.ndarray:
        box = Box.between([axis.start for axis in where], [axis.stop for axis in where])
        return self._read(box).astype(self.dtype, copy=False)

    def scaled(self, scale: float, shift: float) -> StoredVoxels:
        """Multiply slices by `scale` and add `shift`; they become float32."""
        made, factor, added = copy.copy(self), np.float32(scale), np.float32(shift)
        made._read = lambda box: self._read(box).astype(np.float32) * factor + added
        made.dtype = np.dtype(np.float32)
        return made

    def placed(self, placement: Placement) -> StoredVoxels:
        """Count and size voxels as the volume does that `placement` lies in this one."""
        made = copy.copy(self)
        made._read = lambda box: placement.pick(self._read(placement.box(box)), box)
        made.shape = placement.covered(self.shape).end
        made.chunk_shape = placement.pieces(self.chunk_shape)
        return made


def open_raw(said: str | VolumeInput, voxel_size: Nm3 | None = None) -> StoredVoxels:
    """Open intensities in any format of `Volume`; floats are read as float32.

    Parameters
    ----------
    voxel_size : (3,) floats, optional
        nm (z, y, x), for volumes that do not say it.

    Raises
    ------
    ConfigError, VolumeError
        If there is no volume of intensities (z, y, x).
    IncompleteInputError
        If a run has not made all of it.
    """
    volume = _open_volume(_sized(said, voxel_size))
    if volume.channels is not None or volume.dtype.kind not in "uif" or volume.dtype.itemsize > 4:
        raise ConfigError(
            f"The raw data {volume.path} are {volume.dtype} with {volume.channels or 'no'} channels; "
            "training needs intensities (z, y, x), of integers or floats of at most 32 bits. Name "
            "the image volume, not labels or a prediction."
        )
    dtype = np.float32 if volume.dtype.kind == "f" else volume.dtype
    return _stored(volume, volume.read, dtype)


def open_mask(said: str | VolumeInput) -> StoredVoxels:
    """Open a mask in any format of `Volume`; slices are uint8, 1 where the volume is not 0.

    Raises
    ------
    ConfigError, VolumeError
        If there is no volume of integers or booleans (z, y, x).
    IncompleteInputError
        If a run has not made all of it.
    """
    volume = _open_volume(said)
    if volume.channels is not None or volume.dtype.kind not in "uib":
        raise ConfigError(
            f"The mask {volume.path} is {volume.dtype} with {volume.channels or 'no'} channels, but a "
            "mask is one integer or boolean per voxel (z, y, x), 0 outside. Name another volume."
        )
    return _stored(volume, lambda box: volume.read(box) != 0, np.uint8)


def open_ids(said: str | VolumeInput, raw: StoredVoxels) -> StoredVoxels:
    """Open labels in any format of `open_labels`; slices are unsigned.

    Parameters
    ----------
    raw : StoredVoxels
        Their place holds for HDF5 labels of the same shape that do not tell their own.

    Raises
    ------
    ConfigError, VolumeError
        If there are no ids; slices raise the first where an id is negative.
    IncompleteInputError
        If a run has not made all of them.
    """
    require_complete(path_of(said), name="training data")
    files = ExitStack()
    _, labels = placed([raw, files.enter_context(open_labels(said))])
    return StoredVoxels(
        labels.read, path=labels.path, shape=labels.shape, chunk_shape=labels.chunk_shape,
        dtype=f"u{labels.dtype.itemsize}", frame=labels.frame, signed=labels.dtype.kind == "i",
        files=files,
    )


def _sized(said: str | VolumeInput, voxel_size: Nm3 | None) -> str | VolumeInput:
    """A volume with the voxel size that is told, if it says none itself."""
    if voxel_size is None or isinstance(said, VolumeInput):
        return said
    try:
        Volume.open(said)
    except VolumeError:  # its own message if it is not only the voxel size that is missing
        return VolumeInput(path=said, voxel_size=voxel_size)
    return said


def _open_volume(said: str | VolumeInput) -> Volume:
    require_complete(path_of(said), name="training data")
    return Volume.open(said)


def _stored(volume: Volume, read: ReadBox, dtype: np.dtype | str) -> StoredVoxels:
    return StoredVoxels(
        read, path=volume.path, shape=volume.shape, chunk_shape=volume.piece_shape, dtype=dtype,
        frame=volume.frame,
    )
