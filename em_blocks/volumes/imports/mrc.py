"""MRC files (MRC2014, CCP4, IMOD): maps and tomograms.

Format: Cheng et al., doi:10.1016/j.jsb.2015.04.002; IMOD's use of its free fields:
https://bio3d.colorado.edu/imod/doc/mrc_format.txt.
"""

from __future__ import annotations

import bz2
import gzip
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from em_blocks.config import LocalPath, VolumeInput
from em_blocks.errors import ConfigError
from em_blocks.extras import needed_extras
from em_blocks.volumes.imports.arrays import arrange, check_length, header_of, read_box
from em_blocks.volumes.imports.digest import identity_of
from em_blocks.volumes.imports.sources import ReadBox, Source, SourceHeader
from em_blocks.volumes.imports.unpacked import unpacked, unpacked_size
from em_blocks.volumes.metadata import Stored
from em_blocks.volumes.metadata.claims import Axes

_HEADER_BYTES = 1024
_SIGNED_SINCE = 20140
"""Version of MRC2014, which says that bytes are signed; before, programs did as they liked."""
_IMOD_STAMP, _IMOD_SIGNED = 1146047817, 1
_IMOD_FIELDS = slice(40, 48)  # bytes of `extra2`: stamp and flags
_UNPACK: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}
_DIGITS = 6  # of lengths, which are stored in 32 bits


class MrcFile(Source):
    """An MRC file, also compressed by gzip or bzip2 (then every worker unpacks a copy).

    Its voxel size is in Angstrom; 1 Angstrom is what programs write that do not know it, and is not
    believed.
    """

    type: Literal["mrc"]
    path: LocalPath = Field(description="File .mrc, .rec, .map, .st, also with .gz or .bz2.")
    bytes: Literal["signed", "unsigned"] | None = Field(
        None, exclude_if=lambda signed: signed is None,
        description="Whether values of mode 0 have a sign. Default: as the file says (MRC2014: they "
        "have; IMOD: by its flag), refused where it does not.",
    )

    def header(self, told: VolumeInput | None = None) -> SourceHeader:
        """Read shape, dtype and voxel size; the offset as told, since programs disagree on its sign.

        Raises
        ------
        ConfigError
            If the file is none, or has an origin and no offset is told.
        """
        found = self._mrc()
        if found.origin is not None and (told is None or told.offset is None):
            raise ConfigError(
                f"{self.path} states that its volume begins at {found.origin}, but programs disagree on "
                'the sign and the unit of it. Say "offset": [z, y, x] in nm in the config ([0, 0, 0] to '
                "ignore it)."
            )
        place = {} if found.voxel_size is None else {"voxel_size": found.voxel_size}
        stored = Stored(str(self.path), found.shape, place)
        return header_of(stored, found.dtype, found.axes, told)

    def check(self) -> None:
        """Raise `ConfigError` unless all values of a volume of numbers are there."""
        found = self._mrc()
        found.arrangement(self.path)
        if self.path.suffix in _UNPACK:
            with self._stream() as stream:
                size = unpacked_size(str(self.path), stream)
        else:
            size = self.path.stat().st_size
        needed = found.begin + math.prod(found.shape) * found.dtype.itemsize
        check_length(str(self.path), size, needed, found.shape)

    def identity(self) -> dict:
        """Return the size of the file and a digest of pieces of it."""
        return identity_of(self.path)

    @contextmanager
    def open(self) -> Iterator[ReadBox]:
        """Map the file into memory, unpacked if need be; yield a function that reads a box."""
        found = self._mrc()
        with ExitStack() as stack:
            path = self.path
            if path.suffix in _UNPACK:
                stream = stack.enter_context(self._stream())
                path = stack.enter_context(unpacked(str(path), stream))
            values = np.memmap(path, found.dtype, "r", found.begin, found.shape)
            native = found.dtype.newbyteorder("=")
            yield partial(read_box, values, found.arrangement(self.path), native)

    def _stream(self) -> Any:
        return _UNPACK[self.path.suffix](self.path, "rb")

    def _mrc(self) -> _Mrc:
        with needed_extras():
            import mrcfile
        try:
            with mrcfile.open(self.path, header_only=True) as opened:
                header = opened.header
                dtype = mrcfile.utils.dtype_from_mode(header.mode)
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(
                f"{self.path} is not read as an MRC file: {error}. Check the path and that it was "
                "copied completely; convert older files and other modes by IMOD (newstack -mode 1) or "
                "the program that wrote them."
            ) from error
        return self._described(header, dtype)

    def _described(self, header: Any, dtype: np.dtype) -> _Mrc:
        stored = [int(n) for n in (header.maps, header.mapr, header.mapc)]
        if sorted(stored) != [1, 2, 3] or dtype.kind == "c":
            raise ConfigError(
                f"{self.path} holds {dtype} values on the axes {stored} (1 is x), but a volume of "
                "integers or floats on x, y and z is needed."
            )
        shape = (int(header.nz), int(header.ny), int(header.nx))
        if int(header.ispg) > 400 or min(shape) < 1:
            raise ConfigError(
                f"{self.path} holds no volume, but a stack of volumes or nothing: its shape is {shape} "
                f"and its space group {header.ispg}. Store one volume as a file of its own."
            )
        if header.mode == 0 and not self._signed(header):
            dtype = np.dtype(np.uint8)
        order = header.nx.dtype.byteorder
        return _Mrc(
            shape, tuple("xyz"[n - 1] for n in stored), dtype.newbyteorder(order),
            _HEADER_BYTES + int(header.nsymbt), _voxel_size(header), _origin(header),
        )

    def _signed(self, header: Any) -> bool:
        if self.bytes is not None:
            return self.bytes == "signed"
        order = header.nx.dtype.byteorder
        fields = header.extra2.tobytes().ljust(_IMOD_FIELDS.stop, b"\0")[_IMOD_FIELDS]
        stamp, flags = np.frombuffer(fields, np.dtype(np.int32).newbyteorder(order)).tolist()
        if stamp == _IMOD_STAMP:
            return bool(flags & _IMOD_SIGNED)
        if header.nversion >= _SIGNED_SINCE:
            return True
        raise ConfigError(
            f"{self.path} holds bytes (mode 0) and does not say whether they have a sign, so that 200 "
            'could be -56. Say "bytes": "unsigned" (usual for raw data) or "signed" in the source; the '
            f"mean of its header is {float(header.dmean):.4g}."
        )


class _Mrc(NamedTuple):
    """The header of an MRC file."""

    shape: tuple[int, ...]  # as stored, the slowest first
    axes: Axes
    dtype: np.dtype  # as stored
    begin: int  # of the values in the file
    voxel_size: list[float] | None  # nm, of the axes of space as stored
    origin: str | None  # what the header says, where it is not 0

    def arrangement(self, path: Path):
        """Return the arrangement as (z, y, x)."""
        return arrange(Stored(str(path), self.shape, {}), self.axes)


def _voxel_size(header: Any) -> list[float] | None:
    """Return the voxel size in nm by axes as stored; None where the file does not know it."""
    lengths = {axis: float(header.cella[axis]) for axis in "xyz"}
    steps = {axis: int(header[f"m{axis}"]) for axis in "xyz"}
    if min(lengths.values()) <= 0 or min(steps.values()) <= 0:
        return None
    angstrom = {axis: float(f"{lengths[axis] / steps[axis]:.{_DIGITS}g}") for axis in "xyz"}
    if set(angstrom.values()) == {1.0}:
        return None
    names = ("xyz"[n - 1] for n in (header.maps, header.mapr, header.mapc))
    return [angstrom[axis] / 10 for axis in names]


def _origin(header: Any) -> str | None:
    origin = [round(float(header.origin[axis]), 3) for axis in "xyz"]
    start = [int(header[f"n{axis}start"]) for axis in "xyz"]
    if not any(origin) and not any(start):
        return None
    return f"origin {origin} Angstrom, start {start} voxels (x, y, z)"
