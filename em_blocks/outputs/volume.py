"""Volumes that tasks write."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from em_blocks.config import VolumeInput, path_of
from em_blocks.errors import VolumeError
from em_blocks.geometry import BlockGrid, Triple
from em_blocks.outputs.base import Checksum, Output
from em_blocks.outputs.context import RunContext
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.base import Layout
from em_blocks.volumes.formats.storage import Format, detect


@dataclass(frozen=True)
class VolumeOutput(Output):
    """One volume that a task writes.

    Parameters
    ----------
    name : str
        Short name, used in block documents (checksums) and messages.
    path : str
        Where the array is made.
    chunk_shape : (3,) int
        Voxels (z, y, x) of the smallest piece of storage; a block is a whole number of them.
    compression : float
        Expected bytes on disk per byte in memory, for the check of free space.
    """

    name: str
    path: str
    dtype: str
    chunk_shape: Triple
    channels: int | None = None
    format: Format = "zarr"
    shard_shape: Triple | None = None
    attributes: dict = field(default_factory=dict)
    compression: float = 1.0

    @property
    def unit_shape(self) -> Triple:
        return self.shard_shape or self.chunk_shape

    @property
    def unit(self) -> str:
        return "shards" if self.shard_shape else "chunks"

    def identity(self) -> dict:
        return {
            "name": self.name, "dtype": self.dtype, "format": self.format,
            "channels": self.channels, "chunk_shape": list(self.chunk_shape),
            "attributes": self.attributes,
        }

    def exists(self) -> bool:
        return detect(self.path) is not None

    def create(self, grid: BlockGrid, fingerprint: str) -> None:
        if not self.exists():
            Volume.create(
                self.path,
                shape=grid.volume_shape,
                dtype=self.dtype,
                frame=grid.frame,
                chunk_shape=self.chunk_shape,
                channels=self.channels,
                format=self.format,
                shard_shape=self.shard_shape,
                attributes={**self.attributes, "fingerprint": fingerprint},
            )

    def stored_fingerprint(self) -> str | None:
        return Volume.open(self.path).attributes.get("fingerprint")

    def check(self, grid: BlockGrid) -> None:
        if not self.exists():
            layout = Layout(
                grid.volume_shape, np.dtype(self.dtype), grid.frame, self.chunk_shape,
                self.channels, self.shard_shape,
            )
            try:
                Volume.check_creatable(self.path, self.format, layout)
            except VolumeError:
                if not self.exists():  # or else another start has just made it: the lease decides
                    raise

    def nbytes(self, n_voxels: int) -> float:
        return n_voxels * (self.channels or 1) * np.dtype(self.dtype).itemsize * self.compression

    def value(self, context: RunContext) -> Volume:
        return Volume.open(self.path)

    def stored_checksum(self, context: RunContext, grid: BlockGrid) -> Checksum:
        volume = Volume.open(self.path)
        return lambda block: checksum(volume.read(block.write_box))


def fingerprint_of(volume: str | VolumeInput) -> str | None:
    """Return the fingerprint of the run that made a volume; None without volume or fingerprint."""
    if detect(path_of(volume)) is None:
        return None
    return Volume.open(volume).attributes.get("fingerprint")


def checksum(values: np.ndarray) -> int:
    """Return the CRC-32 of the values in (c, z, y, x) order."""
    return zlib.crc32(np.ascontiguousarray(values).data)
