"""NIfTI-1 and NIfTI-2 files; axes are (x, y, z), positions those of voxel centres.

Format: https://nifti.nimh.nih.gov/nifti-1.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from em_blocks.config import LocalPath, VolumeInput
from em_blocks.errors import ConfigError
from em_blocks.extras import needed_extras
from em_blocks.geometry import Box, Nm3, triple
from em_blocks.volumes.imports.arrays import (
    arrange,
    check_length,
    header_of,
    number_type,
    read_box,
)
from em_blocks.volumes.imports.digest import identity_of
from em_blocks.volumes.imports.sources import ReadBox, Source, SourceHeader
from em_blocks.volumes.imports.unpacked import unpacked, unpacked_size
from em_blocks.volumes.metadata import Stored
from em_blocks.volumes.metadata.claims import corner

_NM = {"meter": 1e9, "mm": 1e6, "micron": 1e3}
_AXES = ("x", "y", "z", "t", "c")
_STRAIGHT = 1e-5
"""Of an affine's column, the part off its axis that is rounding."""


class NiftiFile(Source):
    """A NIfTI file (`.nii`; of `.nii.gz`, every worker unpacks a copy); a stated scaling is applied."""

    type: Literal["nifti"]
    path: LocalPath = Field(description="File .nii or .nii.gz.")

    def header(self, told: VolumeInput | None = None) -> SourceHeader:
        """Read shape and dtype; voxel size and offset from the affine, in the unit of the file.

        Raises
        ------
        ConfigError
            If the affine rotates or mirrors the volume, or has no unit and no voxel size is told.
        """
        found = self._nifti()
        place: dict = {}
        if told is None or told.voxel_size is None or told.offset is None:
            place = _place(self.path, found)
        return header_of(Stored(str(self.path), found.shape, place), found.dtype, found.axes, told)

    def check(self) -> None:
        """Raise `ConfigError` unless all values of a volume of numbers are there."""
        found = self._nifti()
        number_type(found.dtype, str(self.path), found.shape)
        if self._is_packed:
            with gzip.open(self.path) as stream:
                size = unpacked_size(str(self.path), stream)
        else:
            size = self.path.stat().st_size
        needed = found.begin + math.prod(found.shape) * found.stored.itemsize
        check_length(str(self.path), size, needed, found.shape)

    def identity(self) -> dict:
        """Return the size of the file and a digest of pieces of it."""
        return identity_of(self.path)

    @contextmanager
    def open(self) -> Iterator[ReadBox]:
        """Map the file into memory, unpacked if need be; yield a function that reads a box."""
        found = self._nifti()
        with ExitStack() as stack:
            path = self.path
            if self._is_packed:
                stream = stack.enter_context(gzip.open(path))
                path = stack.enter_context(unpacked(str(path), stream))
            values = np.memmap(path, found.stored, "r", found.begin, found.shape, "F")
            arrangement = arrange(Stored(str(self.path), found.shape, {}), found.axes)
            read = partial(read_box, values, arrangement, found.stored.newbyteorder("="))
            yield read if found.scaling is None else partial(_scaled, read, *found.scaling)

    @property
    def _is_packed(self) -> bool:
        return self.path.suffix.lower() == ".gz"

    def _nifti(self) -> _Nifti:
        if not self.path.name.lower().endswith((".nii", ".nii.gz")):
            raise ConfigError(
                f"{self.path} is not named .nii or .nii.gz, as a single NIfTI file is. Correct the path "
                "or convert the file."
            )
        with needed_extras():
            import nibabel
        try:
            image = nibabel.load(self.path)
        except (OSError, EOFError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
            raise ConfigError(
                f"{self.path} is not read as a NIfTI file: {error}. Check the path, and that it was "
                "copied completely."
            ) from error
        return _described(self.path, image)


class _Nifti(NamedTuple):
    """The header of a NIfTI file."""

    shape: tuple[int, ...]  # as stored, (x, y, z, ...)
    axes: tuple[str, ...]
    dtype: np.dtype  # of the volume
    stored: np.dtype
    begin: int  # of the values in the file
    scaling: tuple[float, float] | None  # slope and intercept
    affine: np.ndarray | None  # None where the file gives only sizes
    sizes: tuple[float, ...]  # of voxels (x, y, z)
    unit: str


def _described(path: Path, image: Any) -> _Nifti:
    header = image.header
    shape = tuple(map(int, image.shape))
    stored = header.get_data_dtype()
    if len(shape) not in (3, 4, 5) or stored.kind not in "uif":
        raise ConfigError(
            f"{path} has the shape {image.shape} (x, y, z, ...) and dtype {stored}, but a volume of "
            "integers or floats is needed. Colours are not read; store them as channels or as labels."
        )
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    scaling = None if (slope, intercept) == (1, 0) else (float(slope), float(intercept))
    axes = ("x", "y", "z", "c") if len(shape) == 4 else _AXES[: len(shape)]
    coded = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    return _Nifti(
        shape, axes, stored if scaling is None else np.dtype(np.float32), stored,
        int(image.dataobj.offset), scaling, image.affine if coded else None,
        tuple(float(size) for size in header.get_zooms()[:3]), header.get_xyzt_units()[0],
    )


def _place(path: Path, found: _Nifti) -> dict:
    """Return voxel size and offset (nm) as attributes, values in the order of the stored axes."""
    if found.unit not in _NM:
        return {}  # a unit is needed
    scale = _NM[found.unit]
    if found.affine is None:
        return {"voxel_size": [_rounded(size * scale) for size in found.sizes]}
    size, centre = _straight(path, found.affine)
    size = triple(_rounded(s * scale) for s in size)
    return {
        "voxel_size": list(size),
        "offset": [_rounded(o) for o in corner([c * scale for c in centre], size)],
    }


def _straight(path: Path, affine: np.ndarray) -> tuple[Nm3, Nm3]:
    """Return sizes and the centre of the first voxel (x, y, z) of an affine that only scales.

    ITK counts x and y the other way round than NIfTI, so that both of its axes mirrored are none.
    """
    steps = np.diag(affine)[:3]
    off_axis = np.abs(affine[:3, :3] - np.diag(steps)).max()
    signs = tuple(np.sign(steps).astype(int).tolist())
    if off_axis > _STRAIGHT * np.abs(affine[:3, :3]).max() or signs not in ((1, 1, 1), (-1, -1, 1)):
        raise ConfigError(
            f"The affine of {path} is {affine[:3].round(6).tolist()}, which rotates or mirrors the "
            "volume, so its axes are not those of the world. Resample it to straight axes, or say "
            "'voxel_size' and 'offset' (nm, zyx) in the config to take the values in the order in which "
            "they are stored."
        )
    flip = np.array([signs[0], signs[1], 1])
    return triple(np.abs(steps).tolist()), triple((affine[:3, 3] * flip).tolist())


def _rounded(length: float) -> float:
    """Return a length (nm) without what storing it in 32 bits, in mm, added."""
    return float(f"{length:.7g}")


def _scaled(read: ReadBox, slope: float, intercept: float, box: Box) -> np.ndarray:
    return (read(box) * slope + intercept).astype(np.float32)
