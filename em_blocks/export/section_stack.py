"""A volume as a folder of images, one file per section, that keeps its place in the world."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from em_blocks.errors import RefusedError
from em_blocks.geometry import Box
from em_blocks.json_text import json_text
from em_blocks.volumes import Volume
from em_blocks.volumes.imports.images import PLACE_FILE
from em_blocks.volumes.stores.whole_files import written_whole

MOST_BYTES = 1 << 29
"""Of the sections that are held at once, at least one."""

_KEPT = ("labels", "classes")


@dataclass(frozen=True)
class SectionStack(ABC):
    """The sections of a volume, or of a box of it, and how they become files.

    Parameters
    ----------
    volume : Volume
    box : Box
        Its voxels that are written.
    """

    suffix: ClassVar[str]

    volume: Volume
    box: Box

    @abstractmethod
    def read(self, slab: Box) -> np.ndarray:
        """Return the pixels (z, y, x), or (z, y, x, c) in colour, of a slab."""

    @abstractmethod
    def write(self, file: Path, pixels: np.ndarray, section: int) -> None:
        """Write the pixels of one section, numbered as in the volume."""

    def prepare(self, folder: Path) -> None:  # noqa: B027  most need nothing
        """Write what belongs to all sections, besides the sidecar."""

    def document(self) -> dict:
        """Return what the sidecar says, as JSON."""
        roi = self.volume.frame.to_roi(self.box)
        kept = {name: self.volume.attributes[name] for name in _KEPT if name in self.volume.attributes}
        return {
            "voxel_size": list(self.volume.voxel_size), "offset": list(roi.offset), "units": "nm",
            "axes": ["z", "y", "x"], "shape": list(self.box.shape),
            "first_section": self.box.offset[0], "source": self.volume.path,
            "fingerprint": self.volume.attributes.get("fingerprint"), **kept,
        }

    def slabs(self) -> Iterator[Box]:
        """Yield boxes of whole sections that are read together: few enough, and whole chunks if so."""
        z, y, x = self.box.offset
        section = self.box.shape[1] * self.box.shape[2] * max(4, self.volume.dtype.itemsize)
        most = max(1, MOST_BYTES // section)
        depth = self.volume.chunk_shape[0]
        step = depth * (most // depth) or most
        begin, last = z, z + self.box.shape[0]
        while begin < last:
            end = min(last, (begin // step + 1) * step)
            yield Box((begin, y, x), (end - begin, *self.box.shape[1:]))
            begin = end

    def path(self, folder: Path, section: int) -> Path:
        """Return the file of a section, numbered as in the volume."""
        return folder / f"section_{section:05d}{self.suffix}"


def check_folder(stack: SectionStack, folder: Path, *, overwrite: bool = False) -> None:
    """Raise `RefusedError` if a folder holds anything but a part of the same export.

    Raises
    ------
    RefusedError
        Two stacks in one folder would be read as one.
    """
    if overwrite or not folder.is_dir():
        return
    sidecar, files = folder / PLACE_FILE, sorted(folder.glob(f"*{stack.suffix}*"))
    if files and _stated(sidecar) != json.loads(_text(stack)):
        raise RefusedError(
            f"{folder} already holds {files[0].name} of another export, or of this volume before it "
            "changed. Sections of two volumes in one folder would be read as one. Choose another "
            "folder, or give --overwrite to replace them."
        )


def write_stack(
    stack: SectionStack, folder: Path, *, overwrite: bool = False
) -> Iterator[int]:
    """Write all sections that are not there; yield the number of done sections after each slab.

    A file appears in one piece or not at all, so an export that was killed is simply repeated.
    """
    check_folder(stack, folder, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    if overwrite:
        for file in folder.glob(f"section_*{stack.suffix}"):
            file.unlink()
    with written_whole(folder / PLACE_FILE) as partial:
        partial.write_text(_text(stack))
    stack.prepare(folder)
    done = 0
    for slab in stack.slabs():
        files = [stack.path(folder, z) for z in range(slab.offset[0], slab.end[0])]
        if not all(file.exists() for file in files):
            for z, (file, pixels) in enumerate(zip(files, stack.read(slab), strict=True)):
                with written_whole(file) as partial:
                    stack.write(partial, pixels, slab.offset[0] + z)
        done += len(files)
        yield done


def _stated(sidecar: Path) -> object:
    """Return what a sidecar says; None if there is none that can be read."""
    try:
        return json.loads(sidecar.read_text())
    except (OSError, ValueError):
        return None


def _text(stack: SectionStack) -> str:
    return json_text(stack.document(), indent=2) + "\n"
