"""A volume as a folder of TIFF files, one per section, that keeps its place in the world."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile

from em_blocks.config import VolumeInput, path_of
from em_blocks.errors import ConfigError, RefusedError
from em_blocks.geometry import Box
from em_blocks.json_text import json_text
from em_blocks.volumes import Volume
from em_blocks.volumes.imports.images import PLACE_FILE
from em_blocks.volumes.predictions import channel_of
from em_blocks.volumes.stores.whole_files import written_whole

Form = Literal["stored", "uint8", "float32"]
"""Values as they are stored, or probabilities as 0..255 or 0..1."""

MOST_BYTES = 1 << 29
"""Of the sections that are held at once, at least one."""

_NM_PER_CM = 10**7
_KEPT = ("labels", "classes")


@dataclass(frozen=True)
class TiffStack:
    """The sections of a volume, or of a box of it, and how they become files.

    Parameters
    ----------
    volume : Volume
    box : Box
        Its voxels that are written.
    channel : int or None
        None of a volume without channels.
    form : Form
    """

    volume: Volume
    box: Box
    channel: int | None
    form: Form

    @classmethod
    def of(
        cls, source: str | VolumeInput, *, box: Box | None = None, channel: int | str | None = None,
        form: Form = "stored",
    ) -> TiffStack:
        """Open a volume to write.

        Raises
        ------
        ConfigError
            If the channel is unknown, or these are no probabilities where some are asked for.
        """
        volume = Volume.open(source)
        if form != "stored" and volume.scale is None and volume.dtype.kind != "f":
            raise ConfigError(
                f"{path_of(source)} holds {volume.dtype} without the attribute 'scale', so its values "
                f"are no probabilities and cannot be written as {form}. Write them as they are stored."
            )
        return cls(volume, box or volume.box, channel_of(volume, channel), form)

    @property
    def dtype(self) -> np.dtype:
        """Type of the pixels; bool is written as 0 and 1."""
        if self.form != "stored":
            return np.dtype(self.form)
        return np.dtype("uint8") if self.volume.dtype.kind == "b" else self.volume.dtype

    @property
    def scale(self) -> float | None:
        """Value of a pixel that means 1.0; None where values are no probabilities."""
        return {"stored": self.volume.scale, "uint8": 255.0, "float32": 1.0}[self.form]

    def document(self) -> dict:
        """Return what the sidecar says, as JSON."""
        roi = self.volume.frame.to_roi(self.box)
        kept = {name: self.volume.attributes[name] for name in _KEPT if name in self.volume.attributes}
        return {
            "voxel_size": list(self.volume.voxel_size), "offset": list(roi.offset), "units": "nm",
            "axes": ["z", "y", "x"], "shape": list(self.box.shape), "dtype": str(self.dtype),
            "first_section": self.box.offset[0], "scale": self.scale, "channel": self.channel,
            "source": self.volume.path, "fingerprint": self.volume.attributes.get("fingerprint"), **kept,
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

    def read(self, slab: Box) -> np.ndarray:
        """Return the pixels (z, y, x) of a slab."""
        index = slab.slices if self.channel is None else (self.channel, *slab.slices)
        values = self.volume[index]
        if self.form == "stored":
            return values.astype(self.dtype, copy=False)
        probabilities = values.astype(np.float32) / (self.volume.scale or 1.0)
        if self.form == "float32":
            return probabilities
        return np.rint(np.clip(probabilities, 0, 1) * 255).astype(np.uint8)

    def path(self, folder: Path, section: int) -> Path:
        """Return the file of a section, numbered as in the volume."""
        return folder / f"section_{section:05d}.tif"


def check_folder(stack: TiffStack, folder: Path, *, overwrite: bool = False) -> None:
    """Raise `RefusedError` if a folder holds anything but a part of the same export.

    Raises
    ------
    RefusedError
        Two stacks in one folder would be read as one.
    """
    if overwrite or not folder.is_dir():
        return
    sidecar, files = folder / PLACE_FILE, sorted(folder.glob("*.tif*"))
    same = sidecar.is_file() and sidecar.read_text() == _text(stack)
    if files and not same:
        raise RefusedError(
            f"{folder} already holds {files[0].name} of another export, or of this volume before it "
            "changed. Sections of two volumes in one folder would be read as one. Choose another "
            "folder, or give --overwrite to replace them."
        )


def write_stack(
    stack: TiffStack, folder: Path, *, overwrite: bool = False
) -> Iterator[int]:
    """Write all sections that are not there; yield the number of done sections after each slab.

    A file appears in one piece or not at all, so an export that was killed is simply repeated.
    """
    check_folder(stack, folder, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    if overwrite:
        for file in folder.glob("section_*.tif"):
            file.unlink()
    with written_whole(folder / PLACE_FILE) as partial:
        partial.write_text(_text(stack))
    done = 0
    for slab in stack.slabs():
        files = [stack.path(folder, z) for z in range(slab.offset[0], slab.end[0])]
        if not all(file.exists() for file in files):
            for z, (file, pixels) in enumerate(zip(files, stack.read(slab), strict=True)):
                _write_section(file, pixels, stack, slab.offset[0] + z)
        done += len(files)
        yield done


def _text(stack: TiffStack) -> str:
    return json_text(stack.document(), indent=2) + "\n"


def _write_section(file: Path, pixels: np.ndarray, stack: TiffStack, section: int) -> None:
    """Write one section; its tags say the size of pixels, its description the place of the section."""
    frame = stack.volume.frame
    place = frame.to_roi(Box((section, *stack.box.offset[1:]), (1, 1, 1)))
    about = {"voxel_size": list(frame.voxel_size), "offset": list(place.offset), "units": "nm"}
    if stack.scale is not None:
        about["scale"] = stack.scale
    with written_whole(file) as partial:
        tifffile.imwrite(
            partial, pixels, photometric="minisblack", compression="zlib", metadata=about,
            resolution=(_per_cm(frame.voxel_size[2]), _per_cm(frame.voxel_size[1])),
            resolutionunit="CENTIMETER", software="em_blocks",
        )


def _per_cm(size_nm: float) -> tuple[int, int]:
    """Return pixels per centimetre as a fraction of two numbers of 32 bits."""
    size = Fraction(size_nm).limit_denominator(400)
    found = _NM_PER_CM / size if size else Fraction(0)
    return found.numerator, found.denominator
