"""The files of tiles: which there are, by the patterns of a JSON file, and which are missing."""

from __future__ import annotations

import bisect
import itertools
import re
import string
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from em_blocks.config import read_json
from em_blocks.errors import ConfigError

_FIELDS = {"row", "column"}
MOST_NAMED = 5
"""Missing tiles that a message names."""

Place = tuple[int, int, int]
"""Section (from 0), row and column (as their numbers in the names)."""

NamesIn = Callable[[Path, int], list[str]]
"""Sorted paths so many levels below a folder."""


class Tiles(NamedTuple):
    """The tiles of all sections.

    Attributes
    ----------
    files : dict
        Path by place, of those that exist.
    n_sections : int
    rows, columns : range
        Numbers in the names: from the lowest to the highest that any section has.
    """

    files: dict[Place, Path]
    n_sections: int
    rows: range
    columns: range

    def places(self) -> Iterator[Place]:
        """Yield the places of all tiles, missing ones too: sections, then rows, then columns."""
        return itertools.product(range(self.n_sections), self.rows, self.columns)

    def missing(self) -> list[Place]:
        return [place for place in self.places() if place not in self.files]


def find_tiles(listing: Path) -> Tiles:
    """Return the tiles that a JSON file lists.

    Its key ``sections`` holds one pattern per section, a path with ``{row}`` and ``{column}`` in it; a
    relative one begins at the folder of the file. Other keys have no meaning here.

    Raises
    ------
    ConfigError
        If it is no such file, or there are no tiles.
    """
    patterns = [_pattern(listing, n, value) for n, value in enumerate(_sections(listing))]
    folder = cache(_names_in)
    files = {
        (z, *place): file for z, pattern in enumerate(patterns)
        for place, file in _tiles_of(pattern, folder)
    }
    if not files:
        raise ConfigError(
            f"There is none of the tiles that {listing} lists; its first pattern is {patterns[0]}. "
            "Paths that are not absolute begin at the folder of that file. Correct them, or mount the "
            "tiles."
        )
    rows, columns = ({place[axis] for place in files} for axis in (1, 2))
    return Tiles(
        files, len(patterns), range(min(rows), max(rows) + 1), range(min(columns), max(columns) + 1)
    )


def pattern_of(listing: Path, section: int) -> Path:
    """Return the pattern of a section, as a path."""
    return _pattern(listing, section, _sections(listing)[section])


def check_whole(listing: Path, tiles: Tiles) -> None:
    """Raise `ConfigError` if a tile is missing; names the first ones."""
    missing = tiles.missing()
    if not missing:
        return
    named = ", ".join(
        f"row {row}, column {column} of section {z} "
        f"({_filled(pattern_of(listing, z), row, column)})" for z, row, column in missing[:MOST_NAMED]
    )
    more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
    n = tiles.n_sections * len(tiles.rows) * len(tiles.columns)
    raise ConfigError(
        f"{len(missing)} of the {n} tiles of {listing} are missing: {named}{more}. Zeros in their place "
        'would look like empty tissue. Add the files, or say "missing": "zero" if there are none.'
    )


# -- the file ---------------------------------------------------------------------------------------


def _sections(listing: Path) -> list:
    sections = read_json(listing).get("sections")
    if not isinstance(sections, list) or not sections:
        raise ConfigError(
            f"{listing} has no key 'sections' with a list of patterns, one per section, such as "
            '{"sections": ["s0001/r{row}_c{column}.png", "s0002/r{row}_c{column}.png"]}.'
        )
    return sections


def _pattern(listing: Path, number: int, value: object) -> Path:
    if not isinstance(value, str) or _fields(value) != _FIELDS:
        raise ConfigError(
            f"Section {number} of {listing} is {value!r}, but a path with {{row}} and {{column}} in it "
            'is needed, such as "s0001/r{row}_c{column}.png".'
        )
    return listing.parent / value


def _fields(pattern: str) -> set[str]:
    """Return the names of the placeholders of a pattern; none if it is not one."""
    try:
        return {name for _, name, *_ in string.Formatter().parse(pattern) if name is not None}
    except ValueError:
        return set()


def _filled(pattern: Path, row: int, column: int) -> Path:
    return Path(str(pattern).format(row=row, column=column))


# -- the tiles --------------------------------------------------------------------------------------


def _tiles_of(pattern: Path, names_in: NamesIn) -> Iterator[tuple[tuple[int, int], Path]]:
    """Yield row, column and path of all files that fit a pattern."""
    expected = _expression(str(pattern))
    for name in _candidates(pattern, names_in):
        found = expected.fullmatch(name)
        if found is None:
            continue
        row, column = int(found["row"]), int(found["column"])
        if _filled(pattern, row, column) == Path(name):  # 01 is not how the pattern spells 1
            yield (row, column), Path(name)


def _candidates(pattern: Path, names_in: NamesIn) -> Iterator[str]:
    """Return the paths that begin as a pattern does, up to its first placeholder."""
    begin, *_ = next(iter(string.Formatter().parse(str(pattern))))
    fixed, depth = pattern.parent, 1
    while "{" in str(fixed):
        fixed, depth = fixed.parent, depth + 1
    # All sections in one folder are common, and all its names too many to look at for each of them.
    names = names_in(fixed, depth)
    following = itertools.islice(names, bisect.bisect_left(names, begin), None)
    return itertools.takewhile(lambda name: name.startswith(begin), following)


def _names_in(folder: Path, depth: int) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(str(path) for path in folder.glob("/".join("*" * depth)))


def _expression(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern; its groups are row and column."""
    seen: set[str] = set()
    parts = []
    for text, name, *_ in string.Formatter().parse(pattern):
        parts.append(re.escape(text))
        if name is not None:
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>[0-9]+)")
            seen.add(name)
    return re.compile("".join(parts))
