"""Tables of rows per block that tasks write."""

from __future__ import annotations

from dataclasses import dataclass, field

from em_blocks.geometry import BlockGrid
from em_blocks.outputs.base import Checksum, Output
from em_blocks.outputs.context import RunContext
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, checksum_of_columns

TABLES_HEADER = "tables.json"
_BYTES_PER_ROW = 40


@dataclass(frozen=True)
class TableOutput(Output):
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

    def identity(self) -> dict:
        return {"name": self.name, "format": "parquet", "attributes": self.attributes}

    def exists(self) -> bool:
        return self.header() is not None

    def create(self, grid: BlockGrid, fingerprint: str) -> None:
        if not self.exists():
            header = {"fingerprint": fingerprint, "block_shape": list(grid.block_shape)}
            store.write_json(self.path, TABLES_HEADER, {**self.attributes, **header})

    def stored_fingerprint(self) -> str | None:
        return (self.header() or {}).get("fingerprint")

    def nbytes(self, n_voxels: int) -> float:
        return n_voxels * self.rows_per_voxel * _BYTES_PER_ROW

    def value(self, context: RunContext) -> BlockTables:
        return BlockTables(self.path)

    def stored_checksum(self, context: RunContext, grid: BlockGrid) -> Checksum:
        tables = BlockTables(self.path)
        return lambda block: checksum_of_columns(tables.read(block.key))

    def header(self) -> dict | None:
        """Return what `create` stored: fingerprint, block_shape (voxels) and the attributes."""
        return store.read_json(self.path, TABLES_HEADER)


def table_fingerprint(path: str) -> str | None:
    """Return the fingerprint of the run that made the folder of tables `path`, if there is one."""
    return TableOutput("", path).stored_fingerprint()
