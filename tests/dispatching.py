"""Shared helper: steps of a run as the dispatcher sees them, without what they compute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from em_blocks.geometry import BlockGrid, Frame
from em_blocks.runtime.scheduler.dispatch import Work

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))


@dataclass(frozen=True)
class Task:
    """What the dispatcher and the monitor ask of a task."""

    run: str = "step"
    context: tuple[int, int, int] = (0, 0, 0)
    num_workers: int = 100
    max_retries: int = 2
    block_timeout_s: float | None = None
    speculate: bool = False

    def read_context(self):
        return self.context

    def output_specs(self):
        return []


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def work(shape=(1, 1, 4), todo=None, **options):
    """Blocks of 2 x 3 x 4 voxels, those at the end cut."""
    volume = tuple(n * b - 1 for n, b in zip(shape, (2, 3, 4), strict=True))
    grid = BlockGrid(FRAME, volume, (2, 3, 4))
    return Work(Task(**options), grid, np.ones(shape, bool) if todo is None else todo)
