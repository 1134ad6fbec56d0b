"""One image: a section of a stack, in a PNG, TIFF or JPEG file."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
import tifffile
from PIL import Image

from em_blocks.errors import ConfigError, VolumeError
from em_blocks.kernels.images.conversions import rgb_to_ids

Colours = Literal["refuse", "channels", "ids"]
"""Images in colour: an error, several channels, or ids of 24 bits."""

# Pillow takes large images for an attack; sections of 30,000 x 30,000 pixels are normal here.
Image.MAX_IMAGE_PIXELS = None

# White of a 1-bit PNG becomes 255, not 1: series mix 1-bit masks with 8-bit ones from section to
# section, and a pixel that is white in both must not come out as two different numbers.
_GREY = {"1": np.uint8, "L": np.uint8, "I;16": np.uint16}
_SAMPLES = {"LA": 2, "RGB": 3, "RGBA": 4}

# Pillow spreads samples of 2 and 4 bits over 0..255, which would make label 17 of label 1.
_SPREAD = {2: 85, 4: 17}
# Where the first chunk of a PNG, which is always the header, says how many bits a sample has.
_PNG_BITS = 24

_SAMPLE_AXES = ("YXS", "SYX")
"""Of a TIFF page in colour, as tifffile names them."""

# What Pillow, tifffile and their codecs raise for a damaged file.
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    RuntimeError,
    struct.error,
    tifffile.TiffFileError,
)


class Section(NamedTuple):
    """Size and type of one image."""

    shape: tuple[int, int]  # pixels (y, x)
    dtype: np.dtype
    bits: int | None = None  # of a pixel in a PNG file, if they are 2 or 4
    samples: int | None = None  # of a pixel in colour, or grey with transparency

    def __str__(self) -> str:
        bits = "" if self.bits is None else f" of {self.bits} bits"
        samples = "" if self.samples is None else f" of {self.samples} channels"
        return f"{self.shape[0]} x {self.shape[1]} {self.dtype}{bits}{samples}"


@dataclass(frozen=True)
class Pixels:
    """What the pixels of images are, and what becomes of them.

    Parameters
    ----------
    stored : Section
        Size and type of every file.
    colours : Colours
    """

    stored: Section
    colours: Colours

    @classmethod
    def of(cls, file: Path, colours: Colours) -> Self:
        """Read the header of an image; raises `ConfigError`, also if ids are wanted without colours."""
        stored = read_header(file, colours=colours != "refuse")
        if colours == "ids" and (stored.samples not in (3, 4) or stored.dtype != np.uint8):
            raise ConfigError(
                f'The image {file} is {stored}, but with "colours": "ids" every pixel needs red, green '
                "and blue of 8 bits, as VAST exports segmentations: red * 65536 + green * 256 + blue. "
                "Grey images, whose values are the labels, need no key 'colours'."
            )
        return cls(stored, colours)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint32) if self.colours == "ids" else self.stored.dtype

    @property
    def samples(self) -> int | None:
        """Channels of the result; None for one value per pixel."""
        return None if self.colours == "ids" else self.stored.samples

    @property
    def lead(self) -> tuple[int, ...]:
        """Shape of a pixel of the result."""
        return () if self.samples is None else (self.samples,)

    def read(self, file: Path) -> np.ndarray:
        """Return values (y, x), or (c, y, x) with channels; raises `VolumeError`."""
        values = read_section(file, self.stored)
        return rgb_to_ids(values[:, None])[0] if self.colours == "ids" else values


def read_header(file: Path, *, colours: bool = False) -> Section:
    """Return the size and type of an image, without its pixels.

    Parameters
    ----------
    colours : bool
        Whether a pixel may have several samples: of colours, and transparency.

    Raises
    ------
    ConfigError
        If the file is damaged, or does not hold one image with one number (or colour) per pixel.
    """
    try:
        found = _tiff_header(file) if _is_tiff(file) else _pillow_header(file)
    except ConfigError:
        raise
    except DAMAGED as error:
        raise ConfigError(
            f"The image {file} cannot be read ({error}). Replace the file; a section that is lost "
            "permanently can be left out, and filled by the key 'gaps'."
        ) from error
    if found.samples is not None and not colours:
        raise _not_grey(file, _colours_of(file, found))
    return found


def read_section(file: Path, expected: Section) -> np.ndarray:
    """Return the pixels (y, x), or (c, y, x) in colour.

    Raises
    ------
    VolumeError
        If the file is damaged, or not as its header was.
    """
    bits = None
    try:
        if _is_tiff(file):
            with tifffile.TiffFile(file) as tiff:
                page = tiff.pages.first
                values = np.moveaxis(page.asarray(), page.axes.find("S"), 0) if "S" in page.axes \
                    else page.asarray()
        else:
            with Image.open(file) as image:
                values, bits = np.asarray(image), _few_bits(file)
                values = values if values.ndim == 2 else np.moveaxis(values, -1, 0)
    except DAMAGED as error:
        raise VolumeError(f"The section {file} cannot be read: {error}") from error
    if values.dtype == bool:
        values = values * np.uint8(255)
    if bits is not None:
        values = values // np.uint8(_SPREAD[bits])
    samples = None if values.ndim == 2 else len(values)
    found = Section(values.shape[-2:], values.dtype.newbyteorder("="), bits, samples)
    if found != expected:
        raise VolumeError(
            f"The section {file} is {found} instead of {expected}: it was changed since the start."
        )
    return values


def _is_tiff(file: Path) -> bool:
    return file.suffix.lower() in (".tif", ".tiff")


# -- PNG and JPEG ----------------------------------------------------------------------------


def _pillow_header(file: Path) -> Section:
    with Image.open(file) as image:
        shape = (image.height, image.width)
        if image.mode in _GREY:
            return Section(shape, np.dtype(_GREY[image.mode]), _few_bits(file))
        if image.mode in _SAMPLES and _png_bits(file) != 16:
            return Section(shape, np.dtype(np.uint8), None, _SAMPLES[image.mode])
        # Of colours of 16 bits, Pillow reads the upper 8 only.
        bits = " of 16 bits" if image.mode in _SAMPLES else ""
        raise _not_grey(file, f"a {image.format} of mode {image.mode}{bits}")


def _few_bits(file: Path) -> int | None:
    """Return bits of a pixel of a PNG file, if they are 2 or 4."""
    bits = _png_bits(file)
    return bits if bits in _SPREAD else None


def _png_bits(file: Path) -> int | None:
    """Return bits of a sample of a PNG file; None of another one."""
    with open(file, "rb") as opened:
        start = opened.read(_PNG_BITS + 1)
    return start[_PNG_BITS] if start.startswith(b"\x89PNG") else None


# -- TIFF ------------------------------------------------------------------------------------


def _tiff_header(file: Path) -> Section:
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        if (n := _images_in(tiff)) > 1:
            raise _several_pages(file, n)
        samples = check_page(file, page)
        dtype = np.dtype(np.uint8 if page.dtype == bool else page.dtype)
        return Section((page.imagelength, page.imagewidth), dtype.newbyteorder("="), None, samples)


def check_page(file: Path, page: tifffile.TiffPage) -> int | None:
    """Return samples of a pixel in colour, None for grey; raises `ConfigError` for all else."""
    photometric = tifffile.PHOTOMETRIC(page.photometric)
    in_colour = photometric == tifffile.PHOTOMETRIC.RGB and page.axes in _SAMPLE_AXES
    # In the other kinds 0 is white, or a colour of a table: not an intensity.
    if not in_colour and (page.axes != "YX" or photometric != tifffile.PHOTOMETRIC.MINISBLACK):
        raise _not_grey(file, f"a TIFF of shape {page.shape}, {photometric.name}")
    if page.bitspersample not in ((8, 16) if in_colour else (1, 8, 16, 32, 64)):
        raise _not_grey(file, f"a TIFF of {page.bitspersample} bits per pixel")
    return page.samplesperpixel if in_colour else None


def _images_in(tiff: tifffile.TiffFile) -> int:
    """Count the images that a file itself holds.

    ImageJ writes large stacks with one page only. A file of an OME series knows the images of its
    other files too, which are sections of their own here.
    """
    if tiff.is_ome or len(tiff.pages) > 1:
        return len(tiff.pages)
    found = sum(series.size for series in tiff.series) // max(1, tiff.pages.first.size)
    # Of a stack without its end, only the description tells that there were more.
    return max(found, (tiff.imagej_metadata or {}).get("images", 1))


# -- what is refused -------------------------------------------------------------------------


def _colours_of(file: Path, found: Section) -> str:
    if _is_tiff(file):
        return f"a TIFF of {found.samples} channels, RGB"
    with Image.open(file) as image:
        return f"a {image.format} of mode {image.mode}"


def _not_grey(file: Path, what: str) -> ConfigError:
    return ConfigError(
        f"The image {file} is {what}, but one section with one grey value (or label) per pixel is "
        "needed. Convert the stack to single-page grey PNG or TIFF of 8, 16 or 32 bits. Of colours of 8 "
        'bits, "colours": "ids" makes labels (red * 65536 + green * 256 + blue, as VAST does), '
        '"channels" keeps them as (c, z, y, x).'
    )


def _several_pages(file: Path, n: int) -> ConfigError:
    return ConfigError(
        f"The image {file} is a TIFF of {n} pages, but one section per file is needed. A file that "
        f'holds a whole volume is ingested by itself: {{"type": "tiff", "path": "{file}"}}.'
    )
