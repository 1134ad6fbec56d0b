"""The contract of a source of voxels: what `em-blocks ingest` copies into a volume."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from em_blocks.by_kind import ByKind
from em_blocks.config import (
    StrictModel,
    VolumeAxes,
    VolumeInput,
    VolumeRef,
    is_url,
    without_file_scheme,
)
from em_blocks.geometry import Box, Nm3, Triple
from em_blocks.plugins import Registry
from em_blocks.volumes.metadata.attributes import MEANINGS

ReadBox = Callable[[Box], np.ndarray]
"""Reads the voxels (z, y, x) of a box, or (c, z, y, x) where there are channels."""

Counter = Callable[[Box], dict[str, int]]

KEPT = (*MEANINGS, "labels", "classes")
"""Attributes that a copy of a volume has too."""

USUAL_CHUNK = (64, 64, 64)
"""Voxels (z, y, x) that are best read together where nothing is stored in chunks."""

# Left out of a stored config where it is not used: runs older than the key have the same fingerprint.
StoredAxes = Annotated[
    VolumeAxes | None,
    Field(
        description="Axes as stored, the slowest first, where the file does not name them.",
        exclude_if=lambda axes: axes is None,
    ),
]


class SourceHeader(NamedTuple):
    """Metadata of a source, known before its voxels are read."""

    shape: Triple  # voxels (z, y, x)
    dtype: np.dtype
    voxel_size: Nm3 | None = None  # nm (z, y, x); None where the source does not say
    offset: Nm3 | None = None  # nm (z, y, x); None where the source does not say
    chunk_shape: Triple | None = None  # voxels (z, y, x); None where there are no chunks
    channels: int | None = None  # None for a volume without channel axis

    @property
    def full_shape(self) -> tuple[int, ...]:
        """Voxels (z, y, x), or (c, z, y, x) with channels."""
        return self.shape if self.channels is None else (self.channels, *self.shape)

    @property
    def voxel_bytes(self) -> int:
        """Bytes of a voxel, all channels together."""
        return np.dtype(self.dtype).itemsize * (self.channels or 1)


class Source(StrictModel, ABC):
    """A model of what another program wrote; one class per file, registered in `SOURCES`.

    Subclasses add a field ``type: Literal["name"]`` (without default).
    """

    whole_sections: ClassVar[bool] = False
    """Whether a piece of a section costs as much as all of it."""

    whole_pieces: ClassVar[bool] = False
    """Whether a part of a piece, the ``chunk_shape`` of the header, costs as much as all of it."""

    type: str
    path: Path | str

    @field_validator("path", mode="before")
    @classmethod
    def _local_where_files_are_needed(cls, path: Any) -> Any:
        if cls.model_fields["path"].annotation is Path and is_url(without_file_scheme(str(path))):
            raise ValueError(
                "it is in an object store, and files are only read from local folders. Copy it to this "
                'machine first; arrays of zarr, N5 and precomputed are read where they are, by "volume"'
            )
        return path

    @abstractmethod
    def header(self, told: VolumeInput | None = None) -> SourceHeader:
        """Read shape, dtype, and position if the file or the config tells; raises an `EmBlocksError`.

        Parameters
        ----------
        told : VolumeInput, optional
            Its voxel size and offset win over those of the source.
        """

    @abstractmethod
    def check(self) -> None:
        """Raise an `EmBlocksError` for all that can be found wrong without reading all voxels."""

    @abstractmethod
    def identity(self) -> dict:
        """Return what identifies the values, as JSON: at bounded cost, wherever the source lies."""

    @abstractmethod
    def open(self) -> AbstractContextManager[ReadBox]:
        """Open the source; yield a function that reads a box."""

    def attributes(self) -> dict:
        """Return attributes of the volume that is made of it: what a user of it has to know."""
        return {}

    def counter(self) -> Counter:
        """Return a function of a box: what of it is counted in the summary of the run."""
        return lambda box: {}

    def said(self) -> str | None:
        """Return what a user wants to know when the run begins, in one line."""
        return None

    def volumes(self, told: VolumeInput) -> dict[str, VolumeRef]:
        """Return the volumes that it reads, whose runs have to be complete where em_blocks made them."""
        return {}


_HERE = "em_blocks.volumes.imports"
SOURCES = Registry(
    "em_blocks.sources",
    {
        "images": f"{_HERE}.images:ImageStack",
        "tiles": f"{_HERE}.tiles.source:TileStack",
        "tiff": f"{_HERE}.tiff:TiffStack",
        "volume": "em_blocks.volumes.stored_volume:StoredVolume",
        "mrc": f"{_HERE}.mrc:MrcFile",
        "nifti": f"{_HERE}.nifti:NiftiFile",
        "webknossos": f"{_HERE}.webknossos.source:WebKnossosLayer",
        "numpy": f"{_HERE}.numpy_file:NumpyFile",
        "xz_array": f"{_HERE}.xz_array:XzArray",
        "hdf5": f"{_HERE}.hdf5:Hdf5Dataset",
        "hdf5_transforms": f"{_HERE}.hdf5:Hdf5Transforms",
    },
    base=f"{_HERE}.sources:Source",
)

SourceConfig = Annotated[Source, ByKind(SOURCES, key="type")]
"""A source, by its ``type``."""
