"""A task that does nothing, to measure what everything around a block costs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Literal

from em_blocks.config import Shape3
from em_blocks.geometry import BlockGrid, Frame
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockwiseTask


class Noop(BlockwiseTask):
    """Empty blocks over a grid without volumes."""

    kind: Literal["noop"] = "noop"
    n_blocks: Shape3

    def grid(self) -> BlockGrid:
        shape = tuple(n * b for n, b in zip(self.n_blocks, self.block_shape, strict=True))
        return BlockGrid(Frame((40.0, 4.0, 4.0), (400.0, 80.0, 40.0)), shape, self.block_shape)

    def inputs(self) -> dict:
        return {}

    def output_specs(self) -> list:
        return []

    def outputs_root(self) -> str:
        return str(self.run_dir / "none")

    @contextmanager
    def open(self, context: RunContext):
        yield lambda block, report: None
