"""Rows in the database that tasks write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from em_blocks.db.schemas.base import Flags, Index, RowSchema
from em_blocks.errors import RefusedError
from em_blocks.geometry import BlockGrid
from em_blocks.outputs.base import Checksum, Output
from em_blocks.outputs.context import RunContext

_BYTES_PER_ROW = 600


@dataclass(frozen=True)
class RowOutput(Output):
    """Rows that the blocks of a run store, and that are deleted with its documents.

    Parameters
    ----------
    name : str
        Short name, used in block documents (checksums) and messages.
    path : str
        Database and collection, for reports.
    run : str
        The run that the rows belong to.
    columns : sequence of str
        What the task writes: columns of the schema's table, and ``flags``.
    schema : RowSchema
    folder : str or None
        Of an embedded database.
    rows_per_voxel : float
        Expected rows per voxel of a block, for the check of free space.
    indexes : sequence of Index
        Needed besides those of the schema.
    """

    name: str
    path: str
    run: str
    columns: Sequence[str]
    schema: RowSchema[Any]
    folder: str | None = None
    rows_per_voxel: float = 1e-5
    indexes: Sequence[Index] = ()

    @property
    def ledger_path(self) -> None:
        return None

    def identity(self) -> dict:
        return {"name": self.name, "format": "mongodb", "columns": list(self.columns)}

    def nbytes(self, n_voxels: int) -> float:
        return n_voxels * self.rows_per_voxel * _BYTES_PER_ROW

    def checksum(self, rows: Any, flags: Flags) -> int:
        """Return the CRC-32 of what the task writes of these rows."""
        return self.schema.checksum(rows, flags, self.columns)

    def check_new(self, context: RunContext, fingerprint: str) -> None:
        if not context.rows(self.schema).is_empty():
            raise RefusedError(
                f"The database has {self.schema.collection} of run {context.records.run!r}, but no such "
                "run made them. They would be mixed with new ones: choose another name, or delete them "
                "from the collection by hand."
            )

    def check_kept(self, context: RunContext) -> None:
        """Do nothing: done blocks may have no rows."""

    def prepare(self, context: RunContext) -> None:
        rows = context.rows(self.schema)
        rows.prepare()
        rows.prepare(self.indexes)

    def n_rows(self, context: RunContext) -> int:
        return context.rows(self.schema).count()

    def remove(self, context: RunContext) -> None:
        context.rows(self.schema, self.run).remove()

    def value(self, context: RunContext) -> Any:
        return context.rows(self.schema, self.run).read()

    def stored_checksum(self, context: RunContext, grid: BlockGrid) -> Checksum:
        rows = context.rows(self.schema, self.run)
        return lambda block: self.checksum(*rows.read_block(block.key))
