"""Tiles: sections that lie in several images each, as microscopes write and old pipelines list them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
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
from em_blocks.volumes.imports.sources import Counter, ReadBox, Source, SourceHeader
from em_blocks.volumes.imports.tiles.listing import Place, Tiles, check_whole, find_tiles
from em_blocks.volumes.metadata import Stored
from em_blocks.volumes.metadata.claims import SPACE


class TileStack(Source):
    """Sections in tiles: a JSON file lists a pattern with {row} and {column} for each section.

    Tiles are put together without overlap. All are of one size, but those of the last row and
    column may be smaller.
    """

    whole_pieces: ClassVar[bool] = True

    type: Literal["tiles"]
    path: LocalPath = Field(
        description='JSON file: {"sections": [...]}, one path with {row} and {column} in it for each '
        "section, relative to the file. The lowest numbers there are stand for the first row and column."
    )
    missing: Literal["refuse", "zero"] = Field(
        "refuse", exclude_if=lambda missing: missing == "refuse",
        description="What to do about tiles that do not exist: an error, or zeros.",
    )
    colours: Colours = Field(
        "refuse", exclude_if=lambda colours: colours == "refuse",
        description="Images in colour or with transparency: an error, channels (c, z, y, x), or ids, "
        "red * 65536 + green * 256 + blue, as VAST exports segmentations.",
    )

    def header(self, told: VolumeInput | None = None) -> SourceHeader:
        """Read shape and dtype: of the first tile, and of those at the ends of rows and columns.

        Raises
        ------
        ConfigError
            If there are no tiles, or not even one at the end of a row and of a column.
        """
        pixels, grid = self._pixels, self._grid
        shape = (*pixels.lead, self._tiles.n_sections, *grid.shape)
        axes = SPACE if pixels.samples is None else ("c", *SPACE)
        chunks = (*pixels.lead, 1, *grid.tile)
        return header_of(Stored(str(self.path), shape, {}), pixels.dtype, axes, told, chunks)

    def check(self) -> None:
        """Raise `ConfigError` unless all tiles are there, can be read, and fit together."""
        if self.missing == "refuse":
            check_whole(self.path, self._tiles)
        for place, file in self._tiles.files.items():
            self._check_tile(place, file)

    def identity(self) -> dict:
        """Return a digest of the places and sizes of all tiles, and of the bytes of some of them."""
        files = dict(sorted(self._tiles.files.items()))
        names = ["/".join(map(str, place)) for place in files]
        return {"n_files": len(files), "tiles": digest_of_images(names, list(files.values()))}

    def attributes(self) -> dict:
        return {"labels": True} if self.colours == "ids" else {}

    def counter(self) -> Counter:
        """Return a function that counts the sections of a box with missing tiles."""
        sections = sorted({z for z, _, _ in self._tiles.missing()})
        if not sections:
            return super().counter()
        return lambda box: {"sections_with_missing_tiles": sum(
            box.offset[0] <= z < box.end[0] for z in sections
        ) if box.offset[1:] == (0, 0) else 0}

    def said(self) -> str | None:
        n = len(self._tiles.missing())
        return f"{n} missing tiles are filled with zeros" if n else None

    @contextmanager
    def open(self) -> Iterator[ReadBox]:
        """List the files once; yield a function that reads a box."""
        yield self._read

    def _read(self, box: Box) -> np.ndarray:
        """Return the voxels (z, y, x) or (c, z, y, x) of a box."""
        values = np.zeros((*self._pixels.lead, *box.shape), self._pixels.dtype)
        for place, tile in self._grid.boxes(box):
            file = self._tiles.files.get(place)
            if file is not None:
                inside = tile.intersect(box)
                _, rows, columns = inside.relative_to(tile).slices
                pixels = Pixels(self._stored(tile), self.colours)
                found = pixels.read(file)[..., None, rows, columns]
                values[(..., *inside.relative_to(box).slices)] = found
        return values

    def _check_tile(self, place: Place, file: Path) -> None:
        expected = self._stored(self._grid.box(place))
        found = Pixels.of(file, self.colours).stored
        if found != expected:
            raise ConfigError(
                f"The tile {file} is {found}, but {expected} is needed at row {place[1]}, column "
                f"{place[2]} of section {place[0]}: tiles are as the first one, or as the first one of "
                "the last row or column, so that they fit together without overlap. Replace or crop it."
            )

    def _stored(self, tile: Box):
        return self._pixels.stored._replace(shape=tile.shape[1:])

    @cached_property
    def _tiles(self) -> Tiles:
        return find_tiles(self.path)

    @cached_property
    def _pixels(self) -> Pixels:
        return Pixels.of(self._tiles.files[min(self._tiles.files)], self.colours)

    @cached_property
    def _grid(self) -> _Grid:
        tiles = self._tiles
        tall, wide = (self._size(axis, first=True) for axis in (0, 1))
        last = tuple(self._size(axis, first=False) for axis in (0, 1))
        return _Grid(tiles.rows, tiles.columns, (tall, wide), last)

    def _size(self, axis: int, *, first: bool) -> int:
        """Return the pixels along an axis (y, x) of the tiles in the first or last row (column)."""
        numbers = (self._tiles.rows, self._tiles.columns)[axis]
        number = numbers[0] if first else numbers[-1]
        file = next(f for place, f in sorted(self._tiles.files.items()) if place[1 + axis] == number)
        return Pixels.of(file, self.colours).stored.shape[axis]


class _Grid:
    """Where tiles lie in their section.

    Parameters
    ----------
    rows, columns : range
        Their numbers.
    tile, last : (2,) int
        Pixels (y, x) of a tile, and of the one in the last row and column.
    """

    def __init__(self, rows: range, columns: range, tile: tuple[int, ...], last: tuple[int, ...]):
        self.rows, self.columns, self.tile, self.last = rows, columns, tile, last

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels (y, x) of a section."""
        y, x = (
            (len(numbers) - 1) * size + end for numbers, size, end in
            zip((self.rows, self.columns), self.tile, self.last, strict=True)
        )
        return y, x

    def box(self, place: Place) -> Box:
        """Return the voxels of a tile in the volume."""
        z, row, column = place
        y, x = (row - self.rows[0]) * self.tile[0], (column - self.columns[0]) * self.tile[1]
        ends = (min(y + self.tile[0], self.shape[0]), min(x + self.tile[1], self.shape[1]))
        return Box.between((z, y, x), (z + 1, *ends))

    def boxes(self, box: Box) -> Iterator[tuple[Place, Box]]:
        """Yield the places and voxels of all tiles that meet a box."""
        rows, columns = (
            numbers[begin // size : -(-end // size)]
            for numbers, begin, end, size in zip(
                (self.rows, self.columns), box.offset[1:], box.end[1:], self.tile, strict=True
            )
        )
        for z in range(box.offset[0], box.end[0]):
            for row in rows:
                for column in columns:
                    yield (z, row, column), self.box((z, row, column))
