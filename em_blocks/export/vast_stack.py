"""A volume of ids as a folder of PNG files in colour, one per section, as VAST reads and writes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import fastremap
import numpy as np
import pyarrow as pa
import pyarrow.csv
from PIL import Image

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError
from em_blocks.export.section_stack import SectionStack
from em_blocks.geometry import Box
from em_blocks.kernels.images.conversions import LARGEST_COLOUR, ids_to_rgb
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.whole_files import written_whole

TABLE = "ids.csv"
"""In the folder, if ids are renumbered: their numbers in the images (vast), and the ids."""


@dataclass(frozen=True)
class VastStack(SectionStack):
    """As colours: red * 65536 + green * 256 + blue is the id, or its number in a table.

    Parameters
    ----------
    volume, box
        As of `SectionStack`.
    numbered : (n,) integer array, optional
        Sorted ids without 0: the first becomes 1.
    """

    suffix: ClassVar[str] = ".png"

    numbered: np.ndarray | None = None

    @classmethod
    def of(
        cls, source: str | VolumeInput, *, box: Box | None = None, renumber: bool = False
    ) -> VastStack:
        """Open a volume to write, and read all of its ids once.

        Parameters
        ----------
        renumber : bool
            Whether ids become 1, 2, ... in their order.

        Raises
        ------
        ConfigError
            If it does not hold ids, or they are too large or too many for colours.
        """
        volume = Volume.open(source)
        if volume.channels is not None or volume.dtype.kind not in "ui":
            raise ConfigError(
                f"{volume.path} holds {volume.dtype}, {volume.channels or 'no'} channels, but VAST "
                "stores one id per voxel. Name a volume of ids; `em-blocks export tiff` writes images."
            )
        stack = cls(volume, box or volume.box)
        if not renumber:
            for slab in stack.slabs():
                _check_colours(volume, slab)
            return stack
        return cls(volume, stack.box, _all_ids(stack))

    def document(self) -> dict:
        numbered = {} if self.numbered is None else {"renumbered_ids": len(self.numbered)}
        return {**super().document(), "labels": True, "dtype": "uint32", "colours": "ids", **numbered}

    def prepare(self, folder: Path) -> None:
        """Write the table of ids, if they are renumbered."""
        if self.numbered is not None:
            table = pa.table({"vast": np.arange(1, len(self.numbered) + 1), "id": self.numbered})
            with written_whole(folder / TABLE) as partial:
                pyarrow.csv.write_csv(table, partial)

    def read(self, slab: Box) -> np.ndarray:
        """Return the colours (z, y, x, 3) of a slab."""
        ids = self.volume.read(slab)
        if self.numbered is not None:
            ids = np.where(ids == 0, 0, np.searchsorted(self.numbered, ids) + 1)
        return ids_to_rgb(ids)

    def write(self, file: Path, pixels: np.ndarray, section: int) -> None:
        Image.fromarray(pixels).save(file, format="PNG")


def _check_colours(volume: Volume, slab: Box) -> None:
    """Raise `ConfigError` if an id of a slab does not fit into 24 bits."""
    ids = volume.read(slab)
    for id in (ids.min(), ids.max()):
        if not 0 <= id <= LARGEST_COLOUR:
            place = tuple((np.argwhere(ids == id)[0] + slab.offset).tolist())
            raise ConfigError(
                f"{volume.path} holds the id {id} at voxel {place} (zyx), but VAST stores 24 bits, 0 to "
                f"{LARGEST_COLOUR}: other objects would get the same colour. Give --renumber, which "
                f"numbers the ids of the export and writes {TABLE}, or export a part by --roi."
            )


def _all_ids(stack: VastStack) -> np.ndarray:
    """Return all ids but 0, sorted; raises `ConfigError` if they are more than colours, or negative."""
    found = np.zeros(0, stack.volume.dtype)
    for ids in _ids_of_slabs(stack):
        found = np.union1d(found, ids)
    if len(found) and found[0] < 0:
        raise ConfigError(
            f"{stack.volume.path} holds the id {found[0]}, but ids are 0 (background) or positive. "
            "Renumber them by `em-blocks convert` first."
        )
    found = found[found != 0]
    if len(found) > LARGEST_COLOUR:
        raise ConfigError(
            f"{stack.volume.path} holds {len(found)} ids, but VAST stores 24 bits, at most "
            f"{LARGEST_COLOUR}. Export a part by --roi."
        )
    return found


def _ids_of_slabs(stack: VastStack) -> Iterator[np.ndarray]:
    return (fastremap.unique(stack.volume.read(slab)) for slab in stack.slabs())
