"""Image stacks: folders of PNG, TIFF or JPEG files, one file per section."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from em_blocks.config import LocalPath, VolumeInput
from em_blocks.errors import ConfigError
from em_blocks.geometry import Box
from em_blocks.volumes.imports.arrays import header_of
from em_blocks.volumes.imports.digest import digest_of_images
from em_blocks.volumes.imports.image_files import Colours, Pixels
from em_blocks.volumes.imports.sections import Gaps, SectionPattern, Sections, find_sections
from em_blocks.volumes.imports.sources import KEPT, Counter, ReadBox, Source, SourceHeader
from em_blocks.volumes.metadata import Stored
from em_blocks.volumes.metadata.claims import SPACE
from em_blocks.volumes.stores.store import read_json

PLACE_FILE = "volume.json"
"""Next to the images: where the stack lies (voxel_size, offset; nm, zyx), and what its values mean."""

MOST_NAMED = 10
"""Filled sections that a message names."""


class ImageStack(Source):
    """A sequence of PNG, TIFF or JPEG files, one section each, ordered by section number.

    They lie in one folder, or each in a folder of its own.
    """

    whole_sections: ClassVar[bool] = True

    type: Literal["images"]
    path: LocalPath = Field(
        description="Folder of the images (or of folders with one each), or a pattern such as "
        "raw/section_*.tif."
    )
    section_pattern: SectionPattern | None = Field(
        None, exclude_if=lambda pattern: pattern is None,
        description="Regular expression with one group: the digits of the section number in the path of "
        'an image, below the common folder, e.g. "_z([0-9]+)_". Default: the last number that varies.',
    )
    gaps: Gaps = Field(
        "refuse", exclude_if=lambda gaps: gaps == "refuse",
        description="What to do about missing section numbers: an error, the nearest section again, or "
        "zeros. The volume lists them in its attribute filled_sections.",
    )
    colours: Colours = Field(
        "refuse", exclude_if=lambda colours: colours == "refuse",
        description="Images in colour or with transparency: an error, channels (c, z, y, x), or ids, "
        "red * 65536 + green * 256 + blue, as VAST exports segmentations.",
    )

    def header(self, told: VolumeInput | None = None) -> SourceHeader:
        """Read shape and dtype, from the number of files and the first one.

        The place is as told, or as a file ``volume.json`` in the common folder states it, which
        `em-blocks export tiff` writes.

        Raises
        ------
        ConfigError
            If there are no images, or their numbers have gaps or duplicates.
        """
        sections = self._sections()
        first = self._pixels(sections.files[0])
        shape = (*first.lead, len(sections.planes), *first.stored.shape)
        axes = SPACE if first.samples is None else ("c", *SPACE)
        place = _stated(sections, ("voxel_size", "offset"))
        return header_of(Stored(str(self.path), shape, place), first.dtype, axes, told)

    def check(self) -> None:
        """Raise `ConfigError` unless all images can be read and have one shape and dtype."""
        _, names, files, *_ = self._sections()
        expected = self._pixels(files[0]).stored
        for name, file in zip(names, files, strict=True):
            found = self._pixels(file).stored
            if found != expected:
                raise ConfigError(
                    f"The sections of {self.path} differ: {name} is {found}, but {names[0]} is "
                    f"{expected}. All must be alike; convert or crop the odd ones, or name the right "
                    "ones with a pattern."
                )

    def identity(self) -> dict:
        """Return a digest of names and sizes of all files, and of the bytes of some of them."""
        _, names, files, *_ = self._sections()
        digest = digest_of_images(names, files)
        bits = self._pixels(files[0]).stored.bits
        # Runs that began when 4 bits were spread over 0..255 must not go on with other values.
        few = {} if bits is None else {"bits": bits}
        return {"n_files": len(files), "sections": digest, **few}

    @contextmanager
    def open(self) -> Iterator[ReadBox]:
        """List the files once; yield a function that reads a box."""
        sections = self._sections()
        yield partial(_read, sections.planes, self._pixels(sections.files[0]))

    def attributes(self) -> dict:
        """Return what values mean (`KEPT`), and the ``filled_sections`` in place of missing ones.

        Each of these has its ``z`` in the volume, the missing ``number``, and the number that it is
        copied ``from`` (null: zeros).
        """
        sections = self._sections()
        filled = [
            {"z": z, "number": number, "from": source} for z, number, source in sections.filled
        ]
        labels = {"labels": True} if self.colours == "ids" else {}
        filled_sections = {"filled_sections": filled} if filled else {}
        return labels | _stated(sections, KEPT) | filled_sections

    def counter(self) -> Counter:
        """Return a function that counts the ``filled_sections`` in a box of whole sections."""
        filled = [section.z for section in self._sections().filled]
        if not filled:
            return super().counter()
        return lambda box: {
            "filled_sections": sum(box.offset[0] <= z < box.end[0] for z in filled)
        }

    def said(self) -> str | None:
        filled = self._sections().filled
        if not filled:
            return None
        numbers = ", ".join(str(section.number) for section in filled[:MOST_NAMED])
        more = f" and {len(filled) - MOST_NAMED} more" if len(filled) > MOST_NAMED else ""
        by = "zeros" if self.gaps == "zero" else "copies of their neighbours"
        return f"missing sections are filled with {by}: {numbers}{more}"

    def _sections(self) -> Sections:
        return find_sections(self.path, self.section_pattern, self.gaps)

    def _pixels(self, file: Path) -> Pixels:
        return Pixels.of(file, self.colours)


def _stated(sections: Sections, names: Iterable[str]) -> dict:
    """Return values of the file next to the images, where it has them."""
    found = read_json(str(sections.root), PLACE_FILE) or {}
    return {name: found[name] for name in names if found.get(name) is not None}


def _read(planes: list[Path | None], pixels: Pixels, box: Box) -> np.ndarray:
    """Return the voxels (z, y, x) or (c, z, y, x) of a box."""
    values = np.zeros((*pixels.lead, *box.shape), pixels.dtype)
    depth, rows, columns = box.slices
    for z, file in enumerate(planes[depth]):
        if file is not None:
            values[..., z, :, :] = pixels.read(file)[..., rows, columns]
    return values
