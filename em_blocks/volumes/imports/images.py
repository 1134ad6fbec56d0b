"""Image stacks: folders of PNG or TIFF files, one file per section."""

from __future__ import annotations

import glob
import hashlib
import itertools
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import tifffile
from PIL import Image
from pydantic import Field

from em_blocks.config import LocalPath, StrictModel, VolumeInput
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box
from em_blocks.volumes.imports.sources import ReadBox, SourceHeader

# Pillow takes large images for an attack; sections of 30,000 x 30,000 pixels are normal here.
Image.MAX_IMAGE_PIXELS = None

SUFFIXES = (".png", ".tif", ".tiff")

# White of a 1-bit PNG becomes 255, not 1: series mix 1-bit masks with 8-bit ones from section to
# section, and a pixel that is white in both must not come out as two different numbers.
_PNG_DTYPES = {"1": np.uint8, "L": np.uint8, "I;16": np.uint16}

# Pillow spreads samples of 2 and 4 bits over 0..255, which would make label 17 of label 1.
_SPREAD = {2: 85, 4: 17}
# Where the first chunk of a PNG, which is always the header, says how many bits a sample has.
_PNG_BITS = 24

# What Pillow, tifffile and their codecs raise for a damaged file.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    RuntimeError,
    struct.error,
    tifffile.TiffFileError,
)

MOST_FILES_READ, BYTES_READ = 64, 1 << 20
"""Of a stack, for its identity: files, and bytes at the begin, in the middle and at the end of each."""


class Section(NamedTuple):
    """Size and type of one image."""

    shape: tuple[int, int]  # pixels (y, x)
    dtype: np.dtype
    bits: int | None = None  # of a pixel in a PNG file, if they are 2 or 4


class ImageStack(StrictModel):
    """A sequence of PNG or TIFF files, one section each, ordered by section number."""

    whole_sections: ClassVar[bool] = True

    type: Literal["images"]
    path: LocalPath = Field(
        description="Folder of the images, or a pattern such as raw/section_*.tif."
    )

    def header(self, told: VolumeInput | None = None) -> SourceHeader:
        """Read shape and dtype, from the number of files and the first one; the place as told.

        Raises
        ------
        ConfigError
            If there are no images, or their numbers have gaps or duplicates.
        """
        files = section_files(self.path)
        section = read_header(files[0])
        place = (told.voxel_size, told.offset) if told else ()
        return SourceHeader((len(files), *section.shape), section.dtype, *place)

    def check(self) -> None:
        """Raise `ConfigError` unless all images can be read and have one shape and dtype."""
        files = section_files(self.path)
        expected = read_header(files[0])
        for file in files:
            found = read_header(file)
            if found != expected:
                raise ConfigError(
                    f"The sections of {self.path} differ: {file.name} is {_describe(found)}, but "
                    f"{files[0].name} is {_describe(expected)}. All must be alike; convert or crop "
                    "the odd ones, or name the right ones with a pattern."
                )

    def identity(self) -> dict:
        """Return a digest of names and sizes of all files, and of the bytes of some of them.

        A digest of all pixels would read a terabyte twice; times change with every copy.
        """
        files = section_files(self.path)
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        for number in np.unique(np.linspace(0, len(files) - 1, MOST_FILES_READ).astype(int)):
            for piece in _pieces(files[number]):
                digest.update(piece)
        bits = read_header(files[0]).bits
        # Runs that began when 4 bits were spread over 0..255 must not go on with other values.
        few = {} if bits is None else {"bits": bits}
        return {"n_files": len(files), "sections": digest.hexdigest(), **few}

    @contextmanager
    def open(self) -> Iterator[ReadBox]:
        """List the files once; yield a function that reads a box."""
        files = section_files(self.path)
        expected = read_header(files[0])

        def read(box: Box) -> np.ndarray:
            values = np.empty(box.shape, expected.dtype)
            depth, *plane = box.slices
            for target, file in zip(values, files[depth], strict=True):
                target[:] = _read_section(file, expected)[tuple(plane)]
            return values

        yield read


def _pieces(file: Path) -> Iterator[bytes]:
    """Yield the bytes from the beginning, the middle and the end of a file; all of a small one."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        for begin in sorted({0, max(0, (size - BYTES_READ) // 2), max(0, size - BYTES_READ)}):
            opened.seek(begin)
            yield opened.read(BYTES_READ)


def section_files(path: Path) -> list[Path]:
    """Return the images of the folder or pattern `path`, in the order of their section numbers.

    Raises
    ------
    ConfigError
        If there is none, or the numbers in the names have gaps or duplicates.
    """
    files = _image_files(path)
    numbers = _section_numbers(path, [file.name for file in files])
    ordered = sorted(zip(numbers, files, strict=True))
    for (a, first), (b, second) in itertools.pairwise(ordered):
        if a == b:
            raise ConfigError(
                f"{first.name} and {second.name} of {path} have the same section number {a}, so the "
                "order of sections is unknown. Rename one, or choose the files with a pattern such "
                "as raw/section_*.tif."
            )
    if gaps := _gaps(sorted(numbers)):
        raise ConfigError(
            f"Sections are missing in {path}: {gaps} (found {len(files)} files, {ordered[0][1].name} "
            f"to {ordered[-1][1].name}). Every later section would lie at a wrong depth; add the "
            "files, or renumber them if the numbers are not section numbers."
        )
    return [file for _, file in ordered]


def _image_files(path: Path) -> list[Path]:
    if path.is_dir():
        # Names with a leading dot are remains of other systems, not sections.
        files = [p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "."]
        missing = f"The folder {path} holds no PNG or TIFF files"
    else:
        files = [Path(p) for p in glob.glob(str(path))]
        missing = f"There is no folder {path}, and no file fits it as a pattern"
    if not files:
        raise ConfigError(f"{missing}. Correct the path of the image stack.")
    if odd := [p.name for p in files if p.suffix.lower() not in SUFFIXES]:
        raise ConfigError(
            f"{odd[0]}, which fits {path}, is neither a PNG nor a TIFF file. Use a pattern that "
            "fits the images only."
        )
    return files


def _section_numbers(path: Path, names: list[str]) -> list[int]:
    """Return the last whole number in the names that is not the same in all of them."""
    parts = [re.split(r"(\d+)", name) for name in names]
    texts = {tuple(part[::2]): name for part, name in zip(parts, names, strict=True)}
    if len(texts) > 1:
        a, b = sorted(texts.values())[:2]
        raise ConfigError(
            f"The images of {path} are not one series: {a} and {b} differ in more than numbers. "
            "Choose one series with a pattern such as raw/section_*.tif."
        )
    columns = [[int(n) for n in column] for column in zip(*(p[1::2] for p in parts), strict=True)]
    varying = [column for column in columns if len(set(column)) > 1]
    return varying[-1] if varying else [0] * len(names)


def _gaps(numbers: list[int], at_most: int = 10) -> str:
    """Return the numbers missing from a sorted list, as in ``3, 7-9``; empty if none is."""
    gaps = [
        f"{a + 1}" if b - a == 2 else f"{a + 1}-{b - 1}"
        for a, b in itertools.pairwise(numbers)
        if b - a > 1
    ]
    more = f" and {len(gaps) - at_most} more gaps" if len(gaps) > at_most else ""
    return ", ".join(gaps[:at_most]) + more


def read_header(file: Path) -> Section:
    """Return the size and type of an image, without its pixels.

    Raises
    ------
    ConfigError
        If the file is damaged, or does not hold one grey image.
    """
    try:
        return _png_header(file) if file.suffix.lower() == ".png" else _tiff_header(file)
    except ConfigError:
        raise
    except _DAMAGED as error:
        raise ConfigError(
            f"The image {file} cannot be read ({error}). Replace the file; a section that is lost "
            "for good can be replaced by a copy of its neighbour."
        ) from error


def _png_header(file: Path) -> Section:
    with Image.open(file) as image:
        if image.mode not in _PNG_DTYPES:
            raise _not_grey(file, f"a PNG of mode {image.mode}")
        dtype = np.dtype(_PNG_DTYPES[image.mode])
        return Section((image.height, image.width), dtype, _few_bits(file))


def _few_bits(file: Path) -> int | None:
    """Return bits of a pixel of a PNG file, if they are 2 or 4."""
    with open(file, "rb") as opened:
        bits = opened.read(_PNG_BITS + 1)[_PNG_BITS]
    return bits if bits in _SPREAD else None


def _tiff_header(file: Path) -> Section:
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        if (n := _images_in(tiff)) > 1:
            raise _not_grey(file, f"a TIFF of {n} pages")
        # In the other kinds 0 is white, or a colour of a table: not an intensity.
        if len(page.shape) != 2 or page.photometric != tifffile.PHOTOMETRIC.MINISBLACK:
            kind = tifffile.PHOTOMETRIC(page.photometric).name
            raise _not_grey(file, f"a TIFF of shape {page.shape}, {kind}")
        if page.bitspersample not in (1, 8, 16, 32, 64):
            raise _not_grey(file, f"a TIFF of {page.bitspersample} bits per pixel")
        dtype = np.dtype(np.uint8 if page.dtype == bool else page.dtype)
        return Section(page.shape, dtype.newbyteorder("="))


def _images_in(tiff: tifffile.TiffFile) -> int:
    """Count the images that a file itself holds.

    ImageJ writes large stacks with one page only. A file of an OME series knows the images of its
    other files too, which are sections of their own here.
    """
    if tiff.is_ome or len(tiff.pages) > 1:
        return len(tiff.pages)
    return sum(series.size for series in tiff.series) // max(1, tiff.pages.first.size)


def _not_grey(file: Path, what: str) -> ConfigError:
    return ConfigError(
        f"The image {file} is {what}, but one section with one grey value (or label) per pixel is "
        "needed. Convert the stack to single-page grey PNG or TIFF of 8, 16 or 32 bits."
    )


def _read_section(file: Path, expected: Section) -> np.ndarray:
    try:
        if file.suffix.lower() == ".png":
            with Image.open(file) as image:
                values, bits = np.asarray(image), _few_bits(file)
        else:
            with tifffile.TiffFile(file) as tiff:
                values, bits = tiff.pages.first.asarray(), None
    except _DAMAGED as error:
        raise VolumeError(f"The section {file} cannot be read: {error}") from error
    if values.dtype == bool:
        values = values * np.uint8(255)
    if bits is not None:
        values = values // np.uint8(_SPREAD[bits])
    found = Section(values.shape, values.dtype.newbyteorder("="), bits)
    if found != expected:
        raise VolumeError(
            f"The section {file} is {_describe(found)} instead of {_describe(expected)}: it was "
            "changed since the start."
        )
    return values


def _describe(section: Section) -> str:
    bits = "" if section.bits is None else f" of {section.bits} bits"
    return f"{section.shape[0]} x {section.shape[1]} {section.dtype}{bits}"
