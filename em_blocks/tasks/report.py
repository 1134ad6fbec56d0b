"""Measurements of one attempt at one block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from em_blocks.db.rows import RowStore
from em_blocks.db.schemas.base import Flags, Table
from em_blocks.geometry import Block, Box
from em_blocks.outputs import RowOutput
from em_blocks.outputs.volume import checksum
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.tables import BlockTables, checksum_of_columns


@dataclass
class BlockReport:
    """What one attempt at one block measured; becomes part of the block's document.

    Attributes
    ----------
    seconds : dict
        Seconds per stage (read, compute, write), waiting not counted.
    counts : dict
        Whatever the task counts, e.g. saturated voxels.
    checksums : dict
        CRC-32 of the stored values per output, so that `em-blocks verify` can tell
        a damaged block from a good one.
    stage : str or None
        Stage that is running, or that failed.
    fence : function
        Called before anything is written; raises if the scheduler gave the block to another worker.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    checksums: dict[str, int] = field(default_factory=dict)
    stage: str | None = None
    fence: Callable[[], None] = lambda: None

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Time one stage. On an error, `stage` keeps its name."""
        self.stage = stage
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
        self.stage = None

    def write(self, name: str, volume: Volume, box: Box, values: np.ndarray) -> None:
        """Store a block's values and remember their checksum."""
        self.fence()
        volume.write(box, values)
        self.checksums[name] = checksum(values)

    def write_table(
        self, name: str, tables: BlockTables, block: Block, columns: Mapping[str, np.ndarray]
    ) -> None:
        """Store a block's rows and remember their checksum."""
        self.fence()
        tables.write(block.key, columns)
        self.checksums[name] = checksum_of_columns(columns)

    def write_rows(
        self, output: RowOutput, store: RowStore[Table], block: Block, rows: Table, flags: Flags
    ) -> None:
        """Store a block's rows in the database and remember their checksum."""
        self.fence()
        store.replace_block(block.key, rows, flags)
        self.checksums[output.name] = output.checksum(rows, flags)
