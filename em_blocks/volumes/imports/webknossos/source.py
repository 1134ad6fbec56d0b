"""Layers of WEBKNOSSOS data sets as sources: zarr, zarr3, N5 and wkw."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorstore as ts
from pydantic import Field

from em_blocks.config import LocalPath, VolumeInput
from em_blocks.errors import ConfigError
from em_blocks.extras import needed_extras
from em_blocks.geometry import Box, Triple, triple
from em_blocks.volumes.formats.storage import detect
from em_blocks.volumes.imports.arrays import channels_of, number_type, read_box, unreadable
from em_blocks.volumes.imports.digest import signed_values
from em_blocks.volumes.imports.sources import ReadBox, Source, SourceHeader
from em_blocks.volumes.imports.webknossos.properties import Magnification, read_magnification
from em_blocks.volumes.metadata.arrangement import Arrangement
from em_blocks.volumes.stores import store

_FORMATS = ("wkw", "zarr", "zarr3", "n5")
_WKW_AXES = ("c", "x", "y", "z")
_WKW_BLOCK = (32, 32, 32)


class WebKnossosLayer(Source):
    """A layer of a data set of WEBKNOSSOS, within its bounding box, at the place that it states."""

    type: Literal["webknossos"]
    path: LocalPath = Field(description="Folder of the data set, with datasource-properties.json.")
    layer: str | None = Field(
        None, exclude_if=lambda name: name is None,
        description="Name of the layer. Default: the only one.",
    )
    mag: str | None = Field(
        None, exclude_if=lambda name: name is None,
        description='Magnification (x, y, z): "1", "2-2-1". Default: the finest.',
    )

    def header(self, told: VolumeInput | None = None) -> SourceHeader:
        """Read shape, dtype and place of the layer; raises `ConfigError`."""
        with self._opened() as found:
            place = found.mag.voxel_size, found.mag.offset
            if told is not None:
                place = told.voxel_size or place[0], told.offset or place[1]
            return SourceHeader(
                found.mag.shape, found.native, *place, found.chunk_shape, found.channels
            )

    def check(self) -> None:
        """Raise `ConfigError` unless the layer is there, of numbers, and holds its bounding box."""
        with self._opened():
            return

    def identity(self) -> dict:
        """Return a checksum of a sample of the values, wherever the data set lies."""
        return signed_values(self)

    @contextmanager
    def open(self) -> Iterator[ReadBox]:
        """Open the array; yield a function that reads a box."""
        with self._opened() as found:
            yield partial(_read, found)

    @contextmanager
    def _opened(self) -> Iterator[_Layer]:
        mag = read_magnification(self.path, self.layer, self.mag)
        if mag.format not in _FORMATS:
            raise ConfigError(
                f"The layer of {self.path} is stored as {mag.format}; of a data set, "
                f"{', '.join(_FORMATS)} are read. Ingest the array itself: "
                f'{{"type": "volume", "path": "{mag.path}"}}.'
            )
        if mag.format != "wkw":
            yield _checked(mag, _stored_array(mag), mag.axes)
            return
        with needed_extras():
            import wkw
        try:
            opened = wkw.Dataset.open(str(mag.path))
        except wkw.wkw.WKWException as error:
            raise ConfigError(
                f"The layer {mag.path} cannot be opened: {error}. Check that the folder was copied "
                "completely."
            ) from error
        with opened:
            yield _checked(mag, _WkwArray(opened, mag, wkw.wkw.WKWException), _WKW_AXES)


class _Layer(NamedTuple):
    """An open array; an index counts from the first voxel of the bounding box."""

    mag: Magnification
    array: Any
    arrangement: Arrangement
    native: np.dtype
    channels: int | None
    chunk_shape: Triple


class _WkwArray:
    """A wkw data set, sliced as an array (c, x, y, z) of its bounding box; missing files read as 0."""

    def __init__(self, dataset: Any, mag: Magnification, failure: type[Exception]):
        self.dataset, self.begin, self.failure = dataset, mag.begin[::-1], failure
        header = dataset.header
        self.dtype = np.dtype(header.voxel_type)
        self.shape = (header.num_channels, *mag.shape[::-1])
        # Its library gives the text of its latest error to whoever asks first.
        self.lock = threading.Lock()

    def __getitem__(self, index: tuple) -> np.ndarray:
        channels, *space = index
        begin = [part.start + first for part, first in zip(space, self.begin, strict=True)]
        try:
            with self.lock:
                values = self.dataset.read(begin, [part.stop - part.start for part in space])
        except self.failure as error:
            raise OSError(str(error)) from error
        return values[channels]


def _stored_array(mag: Magnification) -> Any:
    """Open an array of zarr or N5, cut to the bounding box."""
    storage = detect(str(mag.path))
    if storage is None:
        raise ConfigError(
            f"There is no array at {mag.path}, where the description of the data set says one is. Check "
            "that its folders were copied completely."
        )
    with store.explained(f"The array {mag.path} ({storage.name}) cannot be opened"):
        array = storage.open(str(mag.path), write=False)
    within = dict(zip("zyx", Box(mag.begin, mag.shape).slices, strict=True))
    if sorted(mag.axes) not in (sorted("xyz"), sorted("cxyz")) or len(mag.axes) != array.rank:
        raise ConfigError(
            f"The array {mag.path} has the shape {tuple(array.shape)}, but its data set names the axes "
            f"{list(mag.axes)}. Correct 'axisOrder' in its description."
        )
    sizes = dict(zip(mag.axes, array.shape, strict=True))
    if any(sizes[axis] < part.stop for axis, part in within.items()):
        raise ConfigError(
            f"The bounding box of {mag.path} ends at {Box(mag.begin, mag.shape).end}, but the array "
            f"at {triple(sizes[axis] for axis in 'zyx')} (voxels, zyx). Correct the description of the "
            "data set."
        )
    return array[tuple(within.get(axis, slice(None)) for axis in mag.axes)][ts.d[:].translate_to[0]]


def _checked(mag: Magnification, array: Any, axes: tuple[str, ...]) -> _Layer:
    """Return an array as a volume; raises `ConfigError` unless it is one of numbers."""
    source, shape = str(mag.path), tuple(array.shape)
    arrangement = Arrangement.of(axes, shape, keeps_channel=False, source=source)
    stored = np.dtype(getattr(array.dtype, "numpy_dtype", array.dtype))
    chunk = getattr(getattr(array, "chunk_layout", None), "read_chunk", None)
    return _Layer(
        mag, array, arrangement, number_type(stored, source, shape),
        channels_of(arrangement, shape),
        _WKW_BLOCK if chunk is None else arrangement.spatial(chunk.shape),
    )


def _read(found: _Layer, box: Box) -> np.ndarray:
    try:
        return read_box(found.array, found.arrangement, found.native, box)
    except (ValueError, OSError, EOFError) as error:
        raise unreadable(str(found.mag.path), box, error) from error
