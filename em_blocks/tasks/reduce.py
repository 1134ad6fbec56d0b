"""The base of tasks that make one table of those that the blocks of a finer grid wrote."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np

from em_blocks.geometry import Block, BlockGrid, Frame, Triple
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.masks import masked_blocks
from em_blocks.volumes.stores.tables import BlockTables, Columns

_READERS = 8


class Reduce(BlockwiseTask):
    """A task whose blocks are super-blocks: each reads the tables of its parts.

    A single block is the whole volume, unless a subclass has another grid.
    """

    @abstractmethod
    def extent(self) -> tuple[Frame, Triple]:
        """Return the frame and the shape, voxels (z, y, x), of the volume that the parts cover."""

    @abstractmethod
    def shape_of_parts(self) -> Triple:
        """Return the voxels (z, y, x) of a block of the finer grid."""

    def grid(self) -> BlockGrid:
        frame, shape = self.extent()
        return BlockGrid(frame, shape, shape)

    @cached_property
    def parts_grid(self) -> BlockGrid:
        """The blocks whose tables are read."""
        return BlockGrid(*self.extent(), self.shape_of_parts())

    @cached_property
    def masked_parts(self) -> np.ndarray:
        """Bool (z, y, x) over the parts: the ones that the mask leaves out, which have no tables."""
        if self.mask is None:
            return np.zeros(self.parts_grid.shape, bool)
        return masked_blocks(self.mask, self.parts_grid)

    def parts(self, block: Block) -> list[str]:
        """Return the keys of the parts of a block that the mask leaves."""
        return [
            part.key for part in self.parts_grid.within(block.write_box)
            if not self.masked_parts[part.index]
        ]


def read_tables(path: str, keys: Iterable[str], names: Sequence[str] | None = None) -> list[Columns]:
    """Read the tables of blocks, in the order of their keys, several at a time."""
    tables = BlockTables(path)
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda key: tables.read(key, names), keys))


def joined(tables: Sequence[Columns], names: Iterable[str]) -> Columns:
    """Return columns of several tables as one table."""
    return {name: np.concatenate([table[name] for table in tables]) for name in names}
