"""What a task writes: volumes, tables of rows per block, and synapses in the database."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from em_blocks.config import VolumeInput, is_url, path_of
from em_blocks.db.synapse_rows import Flags, checksum_of_rows
from em_blocks.db.synapses import SynapseStore
from em_blocks.errors import VolumeError
from em_blocks.geometry import Block, BlockGrid, Triple
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format, Layout, detect
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, checksum_of_columns

Damage = Callable[[Block, int | None], str | None]
"""What is wrong with a stored block that should have this checksum, or None."""

TABLES_HEADER = "tables.json"
_BYTES_PER_ROW = 40
_BYTES_PER_SYNAPSE = 600


@dataclass(frozen=True)
class OutputSpec:
    """One volume that a task writes; made before the first worker starts.

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
        """Voxels that are written as one file or object: shards where there are any."""
        return self.shard_shape or self.chunk_shape

    @property
    def folder(self) -> str | None:
        """Where on a disk of this machine the bytes go; None if they go elsewhere."""
        return _local(self.path)

    @property
    def ledger_path(self) -> str | None:
        """Where the ledger of the output lies; None for what only the database knows."""
        return self.path

    def identity(self) -> dict:
        """What decides the bytes that are stored; part of the fingerprint."""
        return {
            "name": self.name, "dtype": self.dtype, "format": self.format,
            "channels": self.channels, "chunk_shape": list(self.chunk_shape),
            "attributes": self.attributes,
        }

    def exists(self) -> bool:
        return detect(self.path) is not None

    def create(self, grid: BlockGrid, fingerprint: str) -> None:
        """Make the volume, unless an earlier start of this run made it."""
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
        """Of the run that made the existing volume."""
        return Volume.open(self.path).attributes.get("fingerprint")

    def check(self, grid: BlockGrid) -> None:
        """Raise `VolumeError` where `create` would fail, but write nothing."""
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
        """Expected bytes on disk of `n_voxels` voxels."""
        return n_voxels * (self.channels or 1) * np.dtype(self.dtype).itemsize * self.compression

    def damage(self, synapses: SynapseStore) -> Damage:
        """A function that re-reads a block; opens the volume once."""
        volume = Volume.open(self.path)

        def damage(block: Block, expected: int | None) -> str | None:
            try:
                values = volume.read(block.write_box)
            except VolumeError as error:
                return str(error)
            if checksum(values) != expected:
                return f"{self.path} does not hold what block {block.key} wrote"
            return None

        return damage


@dataclass(frozen=True)
class TableSpec:
    """A table of rows per block that a task writes.

    Parameters
    ----------
    name : str
        Short name, used in block documents (checksums) and messages.
    path : str
        Folder of the tables.
    rows_per_voxel : float
        Expected rows per voxel of a block, for the check of free space.
    attributes : dict
        Kept in the header of the tables.
    """

    name: str
    path: str
    rows_per_voxel: float = 0.01
    attributes: dict = field(default_factory=dict)

    unit_shape = None
    channels = None
    compression = 1.0

    @property
    def folder(self) -> str | None:
        """Where on a disk of this machine the bytes go; None if they go elsewhere."""
        return _local(self.path)

    @property
    def ledger_path(self) -> str | None:
        """Where the ledger of the output lies."""
        return self.path

    def identity(self) -> dict:
        """What decides the bytes that are stored; part of the fingerprint."""
        return {"name": self.name, "format": "parquet", "attributes": self.attributes}

    def exists(self) -> bool:
        return self.header() is not None

    def create(self, grid: BlockGrid, fingerprint: str) -> None:
        """Mark the folder as belonging to this run."""
        if not self.exists():
            header = {"fingerprint": fingerprint, "block_shape": list(grid.block_shape)}
            store.write_json(self.path, TABLES_HEADER, {**self.attributes, **header})

    def stored_fingerprint(self) -> str | None:
        """Of the run that made the existing tables."""
        return table_fingerprint(self.path)

    def check(self, grid: BlockGrid) -> None:
        """Tables fit everywhere."""

    def nbytes(self, n_voxels: int) -> float:
        """Expected bytes on disk for `n_voxels` voxels."""
        return n_voxels * self.rows_per_voxel * _BYTES_PER_ROW

    def damage(self, synapses: SynapseStore) -> Damage:
        """A function that re-reads the table of a block."""
        tables = BlockTables(self.path)

        def damage(block: Block, expected: int | None) -> str | None:
            try:
                columns = tables.read(block.key)
            except VolumeError as error:
                return str(error)
            if checksum_of_columns(columns) != expected:
                return f"{self.path} does not hold what block {block.key} wrote"
            return None

        return damage

    def header(self) -> dict | None:
        """What `create` stored: fingerprint, block_shape (voxels) and the attributes."""
        return store.read_json(self.path, TABLES_HEADER)


@dataclass(frozen=True)
class RowsSpec:
    """Synapses that a task writes, or columns of them; they live and die with the run's documents.

    Parameters
    ----------
    name : str
        Short name, used in block documents (checksums) and messages.
    path : str
        Database and collection, for reports.
    run : str
        The run that detects the synapses.
    columns : sequence of str
        What the task writes: columns of `Synapses`, and ``flags``.
    folder : str or None
        Of an embedded database.
    rows_per_voxel : float
        Expected rows per voxel of a block, for the check of free space.
    """

    name: str
    path: str
    run: str
    columns: Sequence[str]
    folder: str | None = None
    rows_per_voxel: float = 1e-5

    unit_shape = None
    channels = None
    compression = 1.0
    ledger_path = None

    def identity(self) -> dict:
        """What decides the rows that are stored; part of the fingerprint."""
        return {"name": self.name, "format": "mongodb", "columns": list(self.columns)}

    def exists(self) -> bool:
        """Whether there is anything outside of the database: never."""
        return False

    def create(self, grid: BlockGrid, fingerprint: str) -> None:
        """The collection is made with its indexes, by `SynapseStore.prepare`."""

    def check(self, grid: BlockGrid) -> None:
        """Rows fit everywhere."""

    def nbytes(self, n_voxels: int) -> float:
        """Expected bytes on disk for `n_voxels` voxels, indexes included."""
        return n_voxels * self.rows_per_voxel * _BYTES_PER_SYNAPSE

    def checksum(self, synapses: Synapses, flags: Flags) -> int:
        """Of what the task writes of these rows."""
        return checksum_of_rows(synapses, flags, self.columns)

    def remove(self, synapses: SynapseStore) -> None:
        """Forget what the task wrote; the rows of the run itself go with its documents."""

    def lost(self, synapses: SynapseStore, grid: BlockGrid) -> np.ndarray:
        """Bool (z, y, x) over the blocks: which have rows that do not hold what the task writes.

        Rows that another run stores anew lose what this one wrote into them.
        """
        return np.zeros(grid.shape, bool)

    def damage(self, synapses: SynapseStore) -> Damage:
        """A function that re-reads the rows of a block."""
        rows = synapses.of_run(self.run)

        def damage(block: Block, expected: int | None) -> str | None:
            if self.checksum(*rows.read_block(block.key)) != expected:
                return f"{self.path} does not hold what block {block.key} wrote"
            return None

        return damage


Output = OutputSpec | TableSpec | RowsSpec


def _local(path: str) -> str | None:
    return None if is_url(path) else path


def fingerprint_of(volume: str | VolumeInput) -> str | None:
    """Of the run that made a volume; None while there is none, or nobody left one."""
    if detect(path_of(volume)) is None:
        return None
    return Volume.open(volume).attributes.get("fingerprint")


def table_fingerprint(path: str) -> str | None:
    """Of the run that made the folder of tables `path`; None while there is none."""
    return (store.read_json(path, TABLES_HEADER) or {}).get("fingerprint")


def checksum(values: np.ndarray) -> int:
    """CRC-32 of the values in (c, z, y, x) order."""
    return zlib.crc32(np.ascontiguousarray(values))
