"""Arrays that were pickled and compressed with lzma (`.xz`); nothing in them is executed."""

from __future__ import annotations

import lzma
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from em_blocks.config import LocalPath, VolumeInput
from em_blocks.errors import ConfigError
from em_blocks.volumes.imports.arrays import arrange, header_of, number_type, read_box
from em_blocks.volumes.imports.digest import identity_of
from em_blocks.volumes.imports.pickles import (
    NotAnArrayError,
    PickledArray,
    Sink,
    read_pickled_array,
)
from em_blocks.volumes.imports.sources import ReadBox, Source, SourceHeader, StoredAxes
from em_blocks.volumes.imports.unpacked import explained
from em_blocks.volumes.metadata import Stored


class XzArray(Source):
    """A numpy array (z, y, x) that Python pickled into an lzma file.

    The pickle is read, not executed: a file that is more than an array of numbers is refused. Every
    worker unpacks the file once, to a temporary one.
    """

    type: Literal["xz_array"]
    path: LocalPath = Field(description="File .xz (or .lzma) of one pickled numpy array.")
    axes: StoredAxes = None

    def header(self, told: VolumeInput | None = None) -> SourceHeader:
        """Read shape and dtype, which takes as long as unpacking; the place as told."""
        found = self._array()
        return header_of(Stored(str(self.path), found.shape, {}), found.dtype, self.axes, told)

    def check(self) -> None:
        """Raise `ConfigError` unless it is one whole array of numbers."""
        self._arrangement(self._array())

    def identity(self) -> dict:
        """Return the size of the file and a digest of pieces of it."""
        return identity_of(self.path)

    @contextmanager
    def open(self) -> Iterator[ReadBox]:
        """Unpack the values; yield a function that reads a box."""
        with tempfile.TemporaryFile(prefix="em-blocks-") as file:
            found = _read(self.path, file)
            file.flush()
            order: Literal["F", "C"] = "F" if found.fortran else "C"
            values = np.memmap(file, found.dtype, "r", 0, found.shape, order)
            dtype = number_type(found.dtype, str(self.path), found.shape)
            yield partial(read_box, values, self._arrangement(found), dtype)

    def _array(self) -> PickledArray:
        if not self.path.is_file():
            raise ConfigError(f"There is no file {self.path}. Correct the path of the pickled array.")
        status = self.path.stat()
        return _header(self.path, status.st_size, status.st_mtime_ns)

    def _arrangement(self, found: PickledArray):
        number_type(found.dtype, str(self.path), found.shape)
        return arrange(Stored(str(self.path), found.shape, {}), self.axes)


class _Nowhere:
    """Takes values and forgets them."""

    def write(self, values: bytes, /) -> None:
        return None


@lru_cache(maxsize=16)
def _header(path: Path, size: int, changed: int) -> PickledArray:
    """Return shape and type; a file is read once per process, as long as it does not change."""
    return _read(path, _Nowhere())


def _read(path: Path, sink: Sink) -> PickledArray:
    most = shutil.disk_usage(tempfile.gettempdir()).free
    try:
        with explained(str(path)), lzma.open(path) as file:
            return read_pickled_array(file, sink, most_bytes=most)
    except NotAnArrayError as error:
        raise ConfigError(
            f"{path} is refused: {error}. A pickle can run any program when it is loaded, so only a "
            "plain numpy array of numbers, pickled with the protocols 3 to 5, is read from one. If you "
            "trust where it comes from, load it yourself and store it with numpy.save."
        ) from error
