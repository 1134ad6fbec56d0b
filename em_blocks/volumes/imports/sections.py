"""Files of the sections of a stack: their order, their numbers, and what stands in for missing ones."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator

from em_blocks.errors import ConfigError

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")

Gaps = Literal["refuse", "repeat", "zero"]
"""What is done about missing sections."""


def _checked(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"it is no regular expression: {error}") from error
    if groups != 1:
        raise ValueError(
            f"it has {groups} groups, but one is needed, around the digits of the section number, as in "
            r'"_z(\\d+)_"'
        )
    return pattern


SectionPattern = Annotated[str, AfterValidator(_checked)]
"""A regular expression with one group."""


class Filled(NamedTuple):
    """A missing section, and what stands in for it."""

    z: int  # of the volume, voxels
    number: int
    source: int | None  # number of the section that is repeated; None: zeros


class Sections(NamedTuple):
    """The sections of a stack, in order."""

    root: Path  # folder that all files lie in, below it
    names: list[str]  # of the files that there are, relative to their common folder
    files: list[Path]  # as many
    planes: list[Path | None]  # for every section of the volume its file; None: zeros
    filled: list[Filled]


def find_sections(path: Path, pattern: str | None = None, gaps: Gaps = "refuse") -> Sections:
    """Return the images of the folder or pattern `path`, in the order of their section numbers.

    Parameters
    ----------
    path : Path
        A folder of images, or of folders with one image each, or a pattern.
    pattern : str, optional
        Regular expression whose group is the section number of a file; searched for in its path below
        the common folder. Default: the last number that is not the same in all of them.
    gaps : {"refuse", "repeat", "zero"}
        What is done about numbers that are missing: an error, the nearest section again (the one before
        where two are equally near), or zeros.

    Raises
    ------
    ConfigError
        If there is none, the numbers have duplicates or (unless they are filled) gaps, or more sections
        are missing than there are.
    """
    root, found = _image_files(path)
    names = [file.relative_to(root).as_posix() for file in found]
    numbers = _last_numbers(path, names) if pattern is None else _by_pattern(path, names, pattern)
    ordered = sorted(zip(numbers, names, found, strict=True))
    for (a, first, _), (b, second, _) in itertools.pairwise(ordered):
        if a == b:
            raise ConfigError(
                f"{first} and {second} of {path} have the same section number {a}, so the order of "
                "sections is unknown. Say where in the name the number is (the key 'section_pattern'), "
                "rename one, or choose the files with a pattern such as raw/section_*.tif."
            )
    numbers = [number for number, _, _ in ordered]
    names, files = [name for _, name, _ in ordered], [file for _, _, file in ordered]
    if missing := missing_numbers(numbers):
        _check_gaps(path, names, missing, numbers, gaps)
    planes, filled = _filled(numbers, files, gaps)
    return Sections(root, names, files, planes, filled)


def missing_numbers(numbers: Sequence[int], at_most: int = 10) -> str:
    """Return the numbers missing from a sorted list, as in ``3, 7-9``; empty if none is."""
    gaps = [
        f"{a + 1}" if b - a == 2 else f"{a + 1}-{b - 1}"
        for a, b in itertools.pairwise(numbers)
        if b - a > 1
    ]
    more = f" and {len(gaps) - at_most} more gaps" if len(gaps) > at_most else ""
    return ", ".join(gaps[:at_most]) + more


# -- files -----------------------------------------------------------------------------------


def _image_files(path: Path) -> tuple[Path, list[Path]]:
    """Return the folder that all images lie in, and the images."""
    if path.is_dir():
        files = _images_in(path) or _one_per_folder(path)
        root, missing = path, f"The folder {path} holds no PNG, TIFF or JPEG files"
    else:
        files = [Path(p) for p in glob.glob(str(path))]
        root, missing = _fixed_part(path), f"There is no folder {path}, and no file fits it as a pattern"
    if not files:
        raise ConfigError(f"{missing}. Correct the path of the image stack.")
    if odd := [p.name for p in files if p.suffix.lower() not in SUFFIXES]:
        raise ConfigError(
            f"{odd[0]}, which fits {path}, is neither a PNG nor a TIFF nor a JPEG file. Use a pattern "
            "that fits the images only."
        )
    return root, files


def _images_in(folder: Path) -> list[Path]:
    # Names with a leading dot are remains of other systems, not sections.
    return [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "."]


def _one_per_folder(path: Path) -> list[Path]:
    """Return the only image of every folder in `path`; folders without images are none of sections."""
    files = []
    for folder in path.iterdir():
        if not folder.is_dir() or folder.name[0] == ".":
            continue
        images = sorted(_images_in(folder))
        if len(images) > 1:
            raise ConfigError(
                f"The folder {folder} holds {len(images)} images ({images[0].name}, {images[1].name} "
                "...), but a folder per section holds one. Choose one image of each with a pattern such "
                f"as {path}/*/{images[0].name}. Tiles of a section are put together by a source of the "
                'type "tiles".'
            )
        files += images
    return files


def _fixed_part(pattern: Path) -> Path:
    """Return the folder below which all that fits a pattern lies."""
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parent.parts)
    return Path(*fixed) if pattern.parent.parts else Path(os.curdir)


# -- numbers ---------------------------------------------------------------------------------


def _last_numbers(path: Path, names: list[str]) -> list[int]:
    """Return the last whole number in the names that is not the same in all of them."""
    parts = [re.split(r"(\d+)", name) for name in names]
    texts = {tuple(part[::2]): name for part, name in zip(parts, names, strict=True)}
    if len(texts) > 1:
        a, b = sorted(texts.values())[:2]
        raise ConfigError(
            f"The images of {path} are not one series: {a} and {b} differ in more than numbers. "
            "Choose one series with a pattern such as raw/section_*.tif, or say where in the name the "
            "section number is, by the key 'section_pattern'."
        )
    columns = [[int(n) for n in column] for column in zip(*(p[1::2] for p in parts), strict=True)]
    varying = [column for column in columns if len(set(column)) > 1]
    return varying[-1] if varying else [0] * len(names)


def _by_pattern(path: Path, names: list[str], pattern: str) -> list[int]:
    return [_number(path, name, re.search(pattern, name), pattern) for name in names]


def _number(path: Path, name: str, found: re.Match[str] | None, pattern: str) -> int:
    digits = found[1] if found else None
    if digits is None or not digits.isdecimal():
        what = "does not fit" if digits is None else f"has {digits!r} where the section number is, by"
        raise ConfigError(
            f"{name} of {path} {what} the section_pattern {pattern!r}, so its place is unknown. Correct "
            "the pattern (its group holds the digits of the section number), or choose the files with a "
            "path such as raw/section_*.tif."
        )
    return int(digits)


# -- gaps ------------------------------------------------------------------------------------


def _check_gaps(
    path: Path, names: list[str], missing: str, numbers: list[int], gaps: Gaps
) -> None:
    """Raise `ConfigError` unless missing sections are to be filled, and are fewer than the others."""
    where = f"{missing} (found {len(names)} files, {names[0]} to {names[-1]})"
    if gaps == "refuse":
        raise ConfigError(
            f"Sections are missing in {path}: {where}. Every later section would lie at a wrong depth; "
            "add the files, say by the key 'gaps' what to put in their place (\"repeat\" or \"zero\"), "
            "or, if the numbers are not section numbers, say by 'section_pattern' which ones are."
        )
    n_missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    if n_missing > len(names):
        raise ConfigError(
            f"{n_missing} sections of {path} are missing: {where}. That is more than there are, so "
            "these are hardly section numbers; say by the key 'section_pattern' which numbers are."
        )


def _filled(
    numbers: list[int], files: list[Path], gaps: Gaps
) -> tuple[list[Path | None], list[Filled]]:
    """Return the file of every section, and the ones that are filled."""
    planes: list[Path | None] = [files[0]]
    filled = []
    for (a, before), (b, after) in itertools.pairwise(zip(numbers, files, strict=True)):
        for number in range(a + 1, b):
            nearer_before = number - a <= b - number
            source = None if gaps == "zero" else a if nearer_before else b
            filled.append(Filled(len(planes), number, source))
            planes.append(None if source is None else before if nearer_before else after)
        planes.append(after)
    return planes, filled
