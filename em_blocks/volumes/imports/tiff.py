"""One TIFF file that holds a whole volume: pages, an ImageJ hyperstack, OME or BigTIFF."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import tifffile
from pydantic import Field

from em_blocks.config import LocalPath, VolumeInput
from em_blocks.errors import ConfigError, EmBlocksError
from em_blocks.geometry import Box
from em_blocks.volumes.imports.arrays import (
    arrange,
    check_length,
    header_of,
    number_type,
    read_box,
    unreadable,
)
from em_blocks.volumes.imports.digest import identity_of
from em_blocks.volumes.imports.image_files import DAMAGED
from em_blocks.volumes.imports.sources import ReadBox, Source, SourceHeader
from em_blocks.volumes.imports.tiff_places import place_attributes
from em_blocks.volumes.metadata import Stored
from em_blocks.volumes.metadata.claims import Axes

_PAGES = ("YX", "YXS", "SYX")
"""Axes of a page, S of samples."""


class TiffStack(Source):
    """A TIFF file of many pages: a stack, a hyperstack with channels, or one page of all of them.

    Uncompressed pages that follow each other are mapped into memory; of others, whole pages are decoded.
    """

    whole_sections: ClassVar[bool] = True

    type: Literal["tiff"]
    path: LocalPath = Field(description="TIFF file with all sections as pages.")
    colours: Literal["refuse", "channels"] = Field(
        "refuse", exclude_if=lambda colours: colours == "refuse",
        description="Pages in colour: an error, or channels (c, z, y, x).",
    )

    def header(self, told: VolumeInput | None = None) -> SourceHeader:
        """Read shape and dtype; voxel size and offset as tifffile, ImageJ or OME state them."""
        with self._opened() as tiff:
            series = self._series(tiff)
            stored = Stored(str(self.path), series.shape, place_attributes(tiff))
            return header_of(stored, series.dtype, series.axes, told)

    def check(self) -> None:
        """Raise `ConfigError` unless all pages are alike, and the file as long as they need."""
        with self._opened() as tiff:
            series = self._series(tiff)
            if series.begin is not None:
                needed = math.prod(series.shape) * series.dtype.itemsize
                return self._check_length(series.begin + needed, series.shape)
            for page in series.pages:
                ends = (np.add(page.dataoffsets, page.databytecounts)).max(initial=0)
                self._check_length(int(ends), series.shape)

    def _check_length(self, needed: int, shape: Sequence[int]) -> None:
        check_length(str(self.path), self.path.stat().st_size, needed, shape)

    def identity(self) -> dict:
        """Return the size of the file and a digest of pieces of it."""
        return identity_of(self.path)

    @contextmanager
    def open(self) -> Iterator[ReadBox]:
        """Open the file; yield a function that reads a box."""
        with self._opened() as tiff:
            series = self._series(tiff)
            array: Any = _Pages(series) if series.begin is None else np.memmap(
                self.path, series.stored_dtype, "r", series.begin, series.shape
            )
            arrangement = arrange(Stored(str(self.path), series.shape, {}), series.axes)
            read = partial(read_box, array, arrangement, series.dtype)
            yield partial(_read, str(self.path), read)

    @contextmanager
    def _opened(self) -> Iterator[tifffile.TiffFile]:
        with ExitStack() as stack:
            try:
                tiff = stack.enter_context(tifffile.TiffFile(self.path))
            except DAMAGED as error:
                raise ConfigError(
                    f"The TIFF file {self.path} cannot be opened: {error}. Check the path, and that the "
                    "file was copied completely."
                ) from error
            yield tiff

    def _series(self, tiff: tifffile.TiffFile) -> _Series:
        try:
            return _one_series(self.path, tiff, colours=self.colours == "channels")
        except EmBlocksError:
            raise
        except DAMAGED as error:
            raise ConfigError(
                f"The pages of the TIFF file {self.path} cannot be read: {error}. The file is damaged, "
                "or was not copied completely."
            ) from error


class _Series(NamedTuple):
    """The pages of a volume."""

    shape: tuple[int, ...]
    axes: Axes
    dtype: np.dtype  # of the volume; 1 bit becomes 0 and 255
    stored_dtype: np.dtype
    pages: Sequence[Any]
    begin: int | None  # of all values in the file, where they follow each other as they are


class _Pages:
    """Pages that are sliced as one array."""

    def __init__(self, series: _Series):
        self.pages = series.pages
        page = len(series.pages[0].shape)
        self.lead = series.shape[: len(series.shape) - page]

    def __getitem__(self, index: tuple) -> np.ndarray:
        n = len(self.lead)
        numbers = np.arange(len(self.pages)).reshape(self.lead)[index[:n]]
        planes = [_values(self.pages[number])[index[n:]] for number in numbers.ravel()]
        return np.stack(planes).reshape(*numbers.shape, *planes[0].shape)


def _values(page: Any) -> np.ndarray:
    values = page.asarray()
    return values * np.uint8(255) if values.dtype == bool else values


def _read(path: str, read: ReadBox, box: Box) -> np.ndarray:
    try:
        return read(box)
    except DAMAGED as error:
        raise unreadable(path, box, error) from error


def _one_series(path: Path, tiff: tifffile.TiffFile, *, colours: bool) -> _Series:
    """Return the pages of a file as one volume; raises `ConfigError`."""
    found = tiff.series
    first = found[0]
    if any(getattr(series, "is_multifile", False) for series in found):
        raise ConfigError(
            f"{path} is one file of an OME series of several. Ingest the folder of all of them: "
            f'{{"type": "images", "path": "{path.parent}"}}.'
        )
    if any((s.shape, s.dtype) != (first.shape, first.dtype) for s in found):
        sizes = " and ".join(sorted({f"{s.shape} {s.dtype}" for s in found})[:3])
        raise ConfigError(
            f"The pages of {path} are not one volume: there are images of {sizes}. Take the others (a "
            "preview, for example) out of the file."
        )
    _check_imagej(path, tiff, sum(series.size for series in found) // first.keyframe.size)
    pages, letters, shape = first.pages, first.axes, first.shape
    if len(found) > 1:
        pages = [page for series in found for page in series.pages]
        letters, shape = f"I{letters}", (len(found), *shape)
    page = first.keyframe
    _check_page(path, page, colours=colours)
    shape, axes = _volume_axes(path, letters, shape, page)
    begin = first.dataoffset if len(found) == 1 else None
    dtype = number_type(np.dtype(page.dtype), str(path), shape)
    return _Series(
        shape, axes, dtype, np.dtype(page.dtype).newbyteorder(tiff.byteorder), pages, begin
    )


def _check_imagej(path: Path, tiff: tifffile.TiffFile, n: int) -> None:
    """Raise `ConfigError` if an ImageJ stack says that it has other than `n` images."""
    stated = (tiff.imagej_metadata or {}).get("images", n)
    if stated != n:
        raise ConfigError(
            f"{path} is an ImageJ stack of {stated} images, but {n} can be read. It was not copied or "
            "written to its end; get it again."
        )


def _check_page(path: Path, page: Any, *, colours: bool) -> None:
    photometric = tifffile.PHOTOMETRIC(page.photometric)
    if photometric == tifffile.PHOTOMETRIC.RGB and page.axes in ("YXS", "SYX"):
        if colours:
            return
        raise ConfigError(
            f"The pages of {path} are in colour ({page.samplesperpixel} samples per pixel), but one "
            'grey value (or label) per voxel is needed. Say "colours": "channels" to keep them as '
            "channels (c, z, y, x), which are made ids or grey after that. If these are 3 or 4 grey "
            "sections that a program took for colours, save them as an ImageJ stack."
        )
    # In the other kinds 0 is white, or a colour of a table: not an intensity.
    if page.axes not in _PAGES or photometric != tifffile.PHOTOMETRIC.MINISBLACK:
        raise ConfigError(
            f"The pages of {path} are of shape {page.shape}, {photometric.name}, but grey values (or "
            "labels) with black as 0 are needed. Save the stack as grey values of 8, 16 or 32 bits."
        )
    if page.bitspersample not in (1, 8, 16, 32, 64):
        raise ConfigError(
            f"The pages of {path} have {page.bitspersample} bits per pixel. Save them with 8, 16 or 32."
        )


def _volume_axes(
    path: Path, letters: str, shape: Sequence[int], page: Any
) -> tuple[tuple[int, ...], Axes]:
    """Return the shape without single entries, and the axes, of a series.

    A single axis besides y and x is z, whatever it is called: programs write sections as points in
    time or as channels.
    """
    n_lead = len(shape) - len(page.axes)
    found = [(a, n) for a, n in zip(letters[:n_lead], shape, strict=False) if n > 1]
    found += zip(page.axes, page.shape, strict=True)
    colour = page.photometric == tifffile.PHOTOMETRIC.RGB
    known = {"Y": "y", "X": "x"} | ({"S": "c"} if colour else {})
    others = [a for a, _ in found if a not in known]
    if not others:
        found, others = [("Z", 1), *found], ["Z"]
    names = iter(_names(path, letters, shape, others, colour=colour))
    axes = tuple(known.get(a) or next(names) for a, _ in found)
    return tuple(n for _, n in found), axes


def _names(
    path: Path, letters: str, shape: Sequence[int], others: list[str], *, colour: bool
) -> list[str]:
    """Return what the axes besides y and x are: z, and c where there are two."""
    if len(others) == 1:
        return ["z"]
    channels = [a in "CS" for a in others]
    if len(others) == 2 and not colour and sum(channels) == 1:
        return ["c" if is_channel else "z" for is_channel in channels]
    if len(others) == 2 and not colour and set(others) <= {"Q", "I"}:  # unnamed, in the usual order
        return ["c", "z"]
    raise ConfigError(
        f"{path} has the axes {letters} of {tuple(shape)}, but a volume has sections, rows and columns, "
        "and perhaps channels. Save one point in time, or one volume, as a file of its own."
    )
