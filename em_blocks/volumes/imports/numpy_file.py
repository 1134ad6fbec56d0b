"""Arrays of numpy: `.npy`, mapped into memory, and `.npz`."""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np
from pydantic import Field

from em_blocks.config import LocalPath, VolumeInput
from em_blocks.errors import ConfigError
from em_blocks.volumes.imports.arrays import (
    arrange,
    check_length,
    header_of,
    number_type,
    read_box,
)
from em_blocks.volumes.imports.digest import identity_of
from em_blocks.volumes.imports.sources import ReadBox, Source, SourceHeader, StoredAxes
from em_blocks.volumes.imports.unpacked import explained, unpacked, unpacked_size
from em_blocks.volumes.metadata import Stored

# Of a file in a zip archive: 30 bytes, the last of which are the lengths of its name and of more.
_LOCAL_HEADER, _LENGTHS = 30, 26


class NumpyFile(Source):
    """A file of numpy.save, or an array of one of numpy.savez; pickled objects are refused.

    What is compressed (numpy.savez_compressed) is unpacked to a temporary file by every worker.
    """

    type: Literal["numpy"]
    path: LocalPath = Field(description="File .npy or .npz.")
    array: str | None = Field(
        None, exclude_if=lambda name: name is None,
        description="Name in a file .npz. Default: the only one.",
    )
    axes: StoredAxes = None

    def header(self, told: VolumeInput | None = None) -> SourceHeader:
        """Read shape and dtype; the place as told."""
        found = self._array()
        return header_of(Stored(self._name, found.shape, {}), found.dtype, self.axes, told)

    def check(self) -> None:
        """Raise `ConfigError` unless the file holds all values of a volume of numbers."""
        found = self._array()
        self._arrange(found)
        needed = math.prod(found.shape) * found.dtype.itemsize
        if found.begin is not None:
            size = self.path.stat().st_size
            return check_length(self._name, size, found.begin + needed, found.shape)
        with _opened_zip(self.path) as archive, archive.open(_member(archive, self.array)) as stream:
            size = unpacked_size(self._name, stream)
        check_length(self._name, size, found.header_bytes + needed, found.shape)

    def identity(self) -> dict:
        """Return the size of the file and a digest of pieces of it."""
        return identity_of(self.path)

    @contextmanager
    def open(self) -> Iterator[ReadBox]:
        """Map the file into memory, unpacked if need be; yield a function that reads a box."""
        found = self._array()
        with self._mapped(found) as (path, begin):
            values = np.memmap(path, found.dtype, "r", begin, found.shape, found.order)
            dtype = number_type(found.dtype, self._name, found.shape)
            yield partial(read_box, values, self._arrange(found), dtype)

    @contextmanager
    def _mapped(self, found: _Array) -> Iterator[tuple[Path, int]]:
        if found.begin is not None:
            yield self.path, found.begin
            return
        with _opened_zip(self.path) as archive, archive.open(_member(archive, self.array)) as stream:
            with unpacked(self._name, stream) as path:
                yield path, found.header_bytes

    @property
    def _name(self) -> str:
        return str(self.path) if self.array is None else f"{self.path}:{self.array}"

    def _array(self) -> _Array:
        if not self.path.is_file():
            raise ConfigError(f"There is no file {self.path}. Correct the path of the array.")
        if not zipfile.is_zipfile(self.path):
            with self.path.open("rb") as file:
                found = _read_header(self._name, file)
            return found._replace(begin=found.header_bytes)
        with _opened_zip(self.path) as archive:
            member = _member(archive, self.array)
            with explained(self._name), archive.open(member) as stream:
                found = _read_header(self._name, stream)
        if member.compress_type != zipfile.ZIP_STORED:
            return found
        return found._replace(begin=_begin(self.path, member) + found.header_bytes)

    def _arrange(self, found: _Array):
        number_type(found.dtype, self._name, found.shape)
        return arrange(Stored(self._name, found.shape, {}), self.axes)


class _Array(NamedTuple):
    """The header of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype
    order: Literal["C", "F"]
    header_bytes: int
    begin: int | None = None  # of the values in the file; None where they are compressed


def _read_header(name: str, file: IO[bytes]) -> _Array:
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read:
            raise ValueError(f"its version {version} is unknown")
        shape, fortran, dtype = read[version](file)
    except (ValueError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{name} is no array of numpy.save: {reason}. Check that it was copied completely; arrays "
            "pickled without it are not read."
        ) from error
    return _Array(shape, dtype, "F" if fortran else "C", file.tell())


@contextmanager
def _opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    with explained(str(path)):
        archive = zipfile.ZipFile(path)
    with archive:
        yield archive


def _member(archive: zipfile.ZipFile, name: str | None) -> zipfile.ZipInfo:
    """Return the array of this name, or the only one; raises `ConfigError`."""
    found = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name not in found:
        asked = "holds several arrays" if name is None else f"has no array {name!r}"
        raise ConfigError(
            f"{archive.filename} {asked}; there are {', '.join(found) or 'none'}. Name one by the key "
            "'array'."
        )
    return found[name]


def _begin(path: Path, member: zipfile.ZipInfo) -> int:
    """Return where the bytes of a file begin in its zip archive."""
    with path.open("rb") as file:
        file.seek(member.header_offset + _LENGTHS)
        return member.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", file.read(4)))
