"""A volume as a folder of TIFF files, one per section, that keeps its place in the world."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import tifffile

from em_blocks.config import VolumeInput, path_of
from em_blocks.errors import ConfigError
from em_blocks.export.section_stack import SectionStack
from em_blocks.geometry import Box
from em_blocks.volumes import Volume
from em_blocks.volumes.predictions import channel_of

Form = Literal["stored", "uint8", "float32"]
"""Values as they are stored, or probabilities as 0..255 or 0..1."""

_NM_PER_CM = 10**7


@dataclass(frozen=True)
class TiffStack(SectionStack):
    """As TIFF files, of any type of values.

    Parameters
    ----------
    volume, box
        As of `SectionStack`.
    channel : int or None
        None of a volume without channels.
    form : Form
    """

    suffix: ClassVar[str] = ".tif"

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
        return {**super().document(), "dtype": str(self.dtype), "scale": self.scale,
                "channel": self.channel}

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

    def write(self, file: Path, pixels: np.ndarray, section: int) -> None:
        """Write one section; its tags say the size of pixels, its description its place."""
        frame = self.volume.frame
        place = frame.to_roi(Box((section, *self.box.offset[1:]), (1, 1, 1)))
        about = {"voxel_size": list(frame.voxel_size), "offset": list(place.offset), "units": "nm"}
        if self.scale is not None:
            about["scale"] = self.scale
        tifffile.imwrite(
            file, pixels, photometric="minisblack", compression="zlib", metadata=about,
            resolution=(_per_cm(frame.voxel_size[2]), _per_cm(frame.voxel_size[1])),
            resolutionunit="CENTIMETER", software="em_blocks",
        )


def _per_cm(size_nm: float) -> tuple[int, int]:
    """Return pixels per centimetre as a fraction of two numbers of 32 bits."""
    size = Fraction(size_nm).limit_denominator(400)
    found = _NM_PER_CM / size if size else Fraction(0)
    return found.numerator, found.denominator
