"""The contract of everything that a task writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from em_blocks.config import is_url
from em_blocks.errors import RefusedError, VolumeError
from em_blocks.geometry import Block, BlockGrid, Triple
from em_blocks.outputs.context import RunContext

Checksum = Callable[[Block], int]
"""The CRC-32 of what a stored block holds; raises `VolumeError` if it cannot be read."""

Damage = Callable[[Block, int | None], str | None]
"""What is wrong with a stored block that should have this checksum, or None."""


class Output(ABC):
    """Something that the blocks of a task write: made before the first worker starts.

    Attributes
    ----------
    name : str
        Short name, used in block documents (checksums) and messages.
    path : str
        Where it lies.
    unit_shape : (3,) int or None
        Voxels (z, y, x) that are written as one file or object; a block is a whole number of them.
    unit : str
        What messages call such a piece.
    channels : int or None
    compression : float
        Expected bytes on disk per byte in memory.
    """

    name: str
    path: str
    channels: int | None = None
    compression: float = 1.0

    @property
    def unit_shape(self) -> Triple | None:
        return None

    @property
    def unit(self) -> str:
        return "chunks"

    @property
    def folder(self) -> str | None:
        """Where on a disk of this machine the bytes go; None if they go elsewhere."""
        return None if is_url(self.path) else self.path

    @property
    def ledger_path(self) -> str | None:
        """Where the ledger of the output lies; None for what only the database knows."""
        return self.path

    @abstractmethod
    def identity(self) -> dict:
        """Return what decides the bytes that are stored; part of the fingerprint."""

    @abstractmethod
    def nbytes(self, n_voxels: int) -> float:
        """Return the expected bytes on disk for `n_voxels` voxels."""

    @abstractmethod
    def value(self, context: RunContext) -> Any:
        """Open what was written: a `Volume`, the `BlockTables`, or the rows of the run."""

    @abstractmethod
    def stored_checksum(self, context: RunContext, grid: BlockGrid) -> Checksum:
        """Return a function that reads a stored block again; opens the output once."""

    def damage(self, context: RunContext, grid: BlockGrid) -> Damage:
        """Return a function that compares a stored block with the checksum that it should have."""
        stored = self.stored_checksum(context, grid)

        def damage(block: Block, expected: int | None) -> str | None:
            try:
                found = stored(block)
            except VolumeError as error:
                return str(error)
            return None if found == expected else self.differs(block)

        return damage

    def differs(self, block: Block) -> str:
        """Return what to say of a block that does not hold what was written."""
        return f"{self.path} does not hold what block {block.key} wrote"

    # -- outside of the database ----------------------------------------------------------

    def exists(self) -> bool:
        """Return whether there is anything outside of the database."""
        return False

    def stored_fingerprint(self) -> str | None:
        """Return the fingerprint of the run that made what exists."""
        return None

    def check(self, grid: BlockGrid) -> None:  # noqa: B027  rows fit everywhere
        """Raise `VolumeError` where `create` would fail, but write nothing."""

    def create(self, grid: BlockGrid, fingerprint: str) -> None:  # noqa: B027  rows need nothing
        """Make the output, unless an earlier start of this run made it."""

    def check_new(self, context: RunContext, fingerprint: str) -> None:
        """Raise `RefusedError` if there is something that the run, which has no record, did not make."""
        if self.exists() and self.stored_fingerprint() != fingerprint:
            raise RefusedError(
                f"{self.path} exists, but no run {context.records.run!r} in the database made it. It "
                "may be the only copy of other data, so it is not overwritten, with any flag: choose "
                "another output, or delete it by hand."
            )

    def check_kept(self, context: RunContext) -> None:
        """Raise `RefusedError` if the run has done blocks, but what they wrote is lost as a whole."""
        n_done = 0 if self.exists() else context.records.n_done()
        if n_done:
            raise RefusedError(
                f"The database has {n_done} done blocks of run {context.records.run!r}, but their "
                f"output {self.path} does not exist. Restore it, or use --overwrite to compute "
                "everything again."
            )

    # -- in the database ------------------------------------------------------------------

    def prepare(self, context: RunContext) -> None:  # noqa: B027  files need none
        """Make the indexes of the database that the output needs."""

    def lost(self, context: RunContext, grid: BlockGrid) -> np.ndarray:
        """Return which blocks lost what they wrote because another run stored rows again.

        Returns
        -------
        (z, y, x) bool array
            Over the blocks.
        """
        return np.zeros(grid.shape, bool)

    def n_rows(self, context: RunContext) -> int:
        """Return how many rows of the run the database holds."""
        return 0

    def remove(self, context: RunContext) -> None:  # noqa: B027  files are removed by their ledgers
        """Delete what the database holds of the output."""
