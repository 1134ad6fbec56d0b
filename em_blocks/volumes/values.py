"""Any volume that is read where it lies: an array of em_blocks, or a file of another program."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePath

import h5py
import numpy as np

from em_blocks.config import VolumeInput, VolumeRef, is_url
from em_blocks.errors import ConfigError
from em_blocks.geometry import Box, Frame, Roi, Triple
from em_blocks.volumes.imports.hdf5 import Hdf5Dataset, Hdf5Transforms
from em_blocks.volumes.imports.sources import SOURCES, USUAL_CHUNK, ReadBox, Source
from em_blocks.volumes.metadata import place_in_config
from em_blocks.volumes.metadata.claims import Axes
from em_blocks.volumes.volume import Volume

_HDF5 = re.compile(r"^(?P<file>.+?\.(?:h5|hdf5|hdf))(?:(?P<separator>[:/])(?P<dataset>.*))?$", re.I)
_TRANSFORMS = "transforms"
_TYPES = {
    ".npy": "numpy", ".xz": "xz_array", ".tif": "tiff", ".tiff": "tiff", ".nii": "nifti",
    ".mrc": "mrc", ".rec": "mrc", ".st": "mrc", ".map": "mrc",
}
"""Types of sources by the ends of their files' names."""
_PACKED = {".gz", ".bz2"}


@dataclass(frozen=True)
class Values:
    """The values (z, y, x) or (c, z, y, x) of a volume, and what is known of them.

    Attributes
    ----------
    path : str
        ``path.zarr/dataset``, ``file.h5:dataset`` or another file.
    shape, chunk_shape : (3,) int
        Voxels (z, y, x); those of a chunk are stored, and so best read, together.
    channels : int or None
        None without channel axis.
    frame : Frame or None
        None where a file does not say how large its voxels are.
    attributes : dict
        Of the volume; empty for files.
    identify : function
        Returns what identifies the content; of some files, samples are read.
    read : function
        All channels of a box.
    read_channel : function
        One channel, by its number, of a box.
    """

    path: str
    shape: Triple
    dtype: np.dtype
    frame: Frame | None
    chunk_shape: Triple
    channels: int | None
    attributes: dict
    identify: Callable[[], dict]
    scale: float | None
    read: ReadBox
    read_channel: Callable[[int, Box], np.ndarray]

    @cached_property
    def identity(self) -> dict:
        """What identifies the content, to detect that a file has changed."""
        return self.identify()

    @property
    def box(self) -> Box:
        """All voxels."""
        return Box((0, 0, 0), self.shape)

    @property
    def full_shape(self) -> tuple[int, ...]:
        """Voxels (z, y, x), or (c, z, y, x) with channels."""
        return self.shape if self.channels is None else (self.channels, *self.shape)

    @property
    def place(self) -> Frame:
        """Where its voxels lie; raises `ConfigError` where nothing says it."""
        if self.frame is None:
            raise unplaced(self.path, self.shape)
        return self.frame

    @property
    def roi(self) -> Roi:
        """Its region of the world, nm."""
        return self.place.to_roi(self.box)


def is_file(path: VolumeRef) -> bool:
    """Tell whether a path names a file of another program, or a dataset of one."""
    return _HDF5.match(str(path)) is not None or _type_of(str(path)) is not None


def describe(path: VolumeRef) -> Values:
    """Return what is known of a volume; values of a file are read inside of `opened_values` only."""
    said, name, source = _parts(path)
    if source is None:
        return _of_volume(Volume.open(path))
    return _of_source(name, source, said, _closed)


@contextmanager
def opened_values(path: VolumeRef) -> Iterator[Values]:
    """Open a volume for reading.

    Parameters
    ----------
    path : str or VolumeInput
        An array in any format of `Volume`, ``file.h5:dataset`` (where a table ``transforms`` lies beside
        it, bodies are read instead of the supervoxels), or a file .npy, .tif, .mrc, .nii or .xz.

    Raises
    ------
    EmBlocksError
        If there is no volume of numbers.
    """
    said, name, source = _parts(path)
    if source is None:
        yield _of_volume(Volume.open(path))
        return
    source.check()
    with source.open() as read:
        yield _of_source(name, source, said, read)


def placed_values(values: Values) -> Values:
    """Return the same values, certainly with a frame; raises `ConfigError` where nothing says it."""
    return replace(values, frame=values.place)


def unplaced(path: str, shape: Triple, more: str = "") -> ConfigError:
    """Return the error of a volume without a place."""
    lacks, add = "does not say how large its voxels are", ""
    if _HDF5.match(path):
        lacks = "has no attribute 'resolution'"
        add = ", or add the attributes resolution and offset (nm, zyx) to the dataset"
    return ConfigError(
        f"{path} {lacks}, so the place of its {shape} voxels is unknown{more}. Say it in the config: "
        f"{place_in_config(path)}{add}."
    )


def _parts(path: VolumeRef) -> tuple[VolumeInput | None, str, Source | None]:
    """Return what a config states of a volume, its name, and the source of a file."""
    said, name = path if isinstance(path, VolumeInput) else None, str(path)
    return said, name, _source(name, None if said is None else said.axes)


def _closed(box: Box) -> np.ndarray:
    raise RuntimeError("the file of these values is not open")


def _of_volume(volume: Volume) -> Values:
    return Values(
        path=volume.path, shape=volume.shape, dtype=volume.dtype, frame=volume.frame,
        chunk_shape=volume.chunk_shape, channels=volume.channels, attributes=volume.attributes,
        identify=lambda: {"fingerprint": volume.attributes.get("fingerprint")}, scale=volume.scale,
        read=volume.read, read_channel=lambda channel, box: volume[(channel, *box.slices)],
    )


def _of_source(path: str, source: Source, said: VolumeInput | None, read: ReadBox) -> Values:
    header = source.header(said)
    frame = header.voxel_size and Frame(header.voxel_size, header.offset or (0.0, 0.0, 0.0))
    return Values(
        path=path, shape=header.shape, dtype=header.dtype, frame=frame,
        chunk_shape=header.chunk_shape or USUAL_CHUNK, channels=header.channels, attributes={},
        identify=source.identity, scale=None, read=read,
        read_channel=lambda channel, box: read(box)[channel],
    )


def _type_of(path: str) -> str | None:
    """Return the type of source that reads a file, by its name; None of folders and URLs."""
    suffixes = [suffix.lower() for suffix in PurePath(path).suffixes]
    kind = _TYPES.get(suffixes[-1]) if suffixes else None
    if suffixes and suffixes[-1] in _PACKED:
        kind = _TYPES.get(suffixes[-2]) if len(suffixes) > 1 else None
    return None if kind is None or is_url(path) or os.path.isdir(path) else kind


def _source(path: str, axes: Axes | None) -> Source | None:
    """Return the source that reads a file; None of an array in a format of `Volume`."""
    if (found := _HDF5.match(path)) is not None:
        return _hdf5_source(found, axes)
    kind = _type_of(path)
    if kind is None:
        return None
    values = {"type": kind, "path": path} | ({} if axes is None else {"axes": axes})
    return SOURCES.get(kind).from_dict(values, source=f"The file {path}")


def _hdf5_source(found: re.Match, axes: Axes | None) -> Hdf5Dataset | Hdf5Transforms:
    """Return the source that reads a dataset of an HDF5 file."""
    path, dataset = found["file"], (found["dataset"] or "").strip("/")
    if found["separator"] != ":" or not dataset:
        raise ConfigError(
            f"{found.string} does not name a dataset. Write FILE:DATASET; {path} holds "
            f"{', '.join(f'{path}:{name}' for name in _volumes_in(path)) or 'no volume'}."
        )
    plain = Hdf5Dataset(type="hdf5", path=path, dataset=dataset, axes=axes)
    plain.check()
    beside = "/".join([*dataset.split("/")[:-1], _TRANSFORMS])
    with h5py.File(path, "r") as file:
        table = file.get(beside)
        has_bodies = isinstance(table, h5py.Dataset) and table.ndim == 2
        is_ids = file[dataset].dtype.kind in "ui"
    if has_bodies and is_ids:
        return Hdf5Transforms(
            type="hdf5_transforms", path=path, stack=dataset, transforms=beside, axes=axes
        )
    return plain


def _volumes_in(path: str) -> list[str]:
    """Return the names of the datasets of three or four dimensions in a file."""
    names = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim in (3, 4):
            names.append(name)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except OSError as error:
        reason = "it does not exist" if not os.path.exists(path) else str(error)
        raise ConfigError(f"The HDF5 file {path} cannot be opened: {reason}.") from error
    return names
