"""Tables of rows per block that tasks write."""

from __future__ import annotations

from dataclasses import dataclass, field

from em_blocks.errors import VolumeError
from em_blocks.geometry import Block, BlockGrid
from em_blocks.outputs.base import Damage, Output, local
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

    @property
    def folder(self) -> str | None:
        return local(self.path)

    @property
    def ledger_path(self) -> str:
        return self.path

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

    def damage(self, context: RunContext, grid: BlockGrid) -> Damage:
        tables = BlockTables(self.path)

        def damage(block: Block, expected: int | None) -> str | None:
            try:
                columns = tables.read(block.key)
            except VolumeError as error:
                return str(error)
            return None if checksum_of_columns(columns) == expected else self.differs(block)

        return damage

    def header(self) -> dict | None:
        """Return what `create` stored: fingerprint, block_shape (voxels) and the attributes."""
        return store.read_json(self.path, TABLES_HEADER)


def table_fingerprint(path: str) -> str | None:
    """Return the fingerprint of the run that made the folder of tables `path`, if there is one."""
    return TableOutput("", path).stored_fingerprint()
