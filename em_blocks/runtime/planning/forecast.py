"""From measured blocks to the time of a run."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from em_blocks.geometry import BlockGrid
from em_blocks.runtime.planning.probe_pool import BlockSample

_EXACT = 100_000
"""Blocks of a step up to which each is given to a worker; above, they are spread evenly."""

_SPREAD = 1.3
"""How much blocks must differ in size before a cost per block can be told from one per voxel."""


@dataclass(frozen=True)
class StepCost:
    """What the blocks of a step cost a worker, and what they move.

    Attributes
    ----------
    start_s : float
        More than a later block, for a worker's first one: opening, loading, compiling.
    block_s, voxel_s : float
        Seconds per block, and more per voxel that it writes.
    read_s : float
        Of `voxel_s`, the part in which it only reads and computes nothing.
    largest : int
        Voxels of the largest block that was measured.
    bytes_in, bytes_out : float or None
        Per voxel written, from and to files; None where none were counted.
    memory_mb, memory_before_mb : float
        Peak of a worker, and its memory before its first block.
    """

    start_s: float
    block_s: float
    voxel_s: float
    read_s: float
    largest: int
    bytes_in: float | None
    bytes_out: float | None
    memory_mb: float
    memory_before_mb: float

    def seconds(self, voxels: float) -> float:
        """Return the seconds of one block that is not a worker's first."""
        return self.block_s + self.voxel_s * voxels

    def peak_mb(self, voxels: float) -> float:
        """Return the peak memory of a worker with blocks of `voxels` voxels."""
        grown = (self.memory_mb - self.memory_before_mb) * voxels / self.largest
        return self.memory_before_mb + grown


def cost_of(samples: Sequence[BlockSample], *, concurrent: int, proportional: bool = False) -> StepCost:
    """Return the cost that explains the samples of a step.

    Parameters
    ----------
    concurrent : int
        Blocks that a worker holds at a time. If more than one, what counts is how quickly one
        follows the other, not how long each is held.
    proportional : bool
        Whether the blocks of the run are much larger than those measured.
    """
    by_process = itertools.groupby(
        sorted(samples, key=lambda s: (s.process, s.end)), lambda s: s.process
    )
    groups = [list(group) for _, group in by_process]
    later = [pair for group in groups for pair in _intervals(group, concurrent)]
    block_s, voxel_s = _line(*np.array(later, float).T, proportional=proportional)
    first = [group[0].end - min(s.begin for s in group) - block_s - voxel_s * group[0].voxels
             for group in groups]
    voxels = sum(s.voxels for s in samples)
    reading = sum(s.read_s for s in samples) / voxels
    return StepCost(
        start_s=max(0.0, float(np.mean(first))), block_s=block_s, voxel_s=voxel_s,
        read_s=min(reading, voxel_s) if concurrent == 1 else 0.0,
        largest=max(s.voxels for s in samples),
        bytes_in=_total(groups, "bytes_read") / voxels or None,
        bytes_out=_total(groups, "bytes_written") / voxels or None,
        memory_mb=max(s.memory_mb for s in samples),
        memory_before_mb=max(s.memory_before_mb for s in samples),
    )


def _intervals(group: Sequence[BlockSample], concurrent: int) -> Iterator[tuple[int, float]]:
    """Yield voxels and seconds of all blocks of a process but the first to end."""
    for before, sample in itertools.pairwise(group):
        begin = before.end if concurrent > 1 else sample.begin
        yield sample.voxels, max(1e-6, sample.end - begin)


def _line(
    voxels: np.ndarray, seconds: np.ndarray, *, proportional: bool
) -> tuple[float, float]:
    """Return seconds per block and per voxel, neither negative.

    Seconds per block are believed only if they are more than twice their standard error: a machine
    that was busy for a moment makes them up.
    """
    per_voxel = 0.0, float(seconds.sum() / voxels.sum())
    if proportional or len(voxels) < 4 or voxels.max() < _SPREAD * voxels.min():
        return per_voxel
    away = voxels - voxels.mean()
    slope = float((away * seconds).sum() / (away**2).sum())
    at_zero = float(seconds.mean() - slope * voxels.mean())
    variance = ((seconds - at_zero - slope * voxels) ** 2).sum() / (len(voxels) - 2)
    error = math.sqrt(variance * (1 / len(voxels) + voxels.mean() ** 2 / (away**2).sum()))
    return (at_zero, slope) if at_zero > 2 * error and slope > 0 else per_voxel


def _total(groups: Iterable[Sequence[BlockSample]], name: str) -> int:
    """Return the bytes of all processes, each of which counts since it opened the step."""
    return sum(max(getattr(s, name) for s in group) for group in groups)


@dataclass(frozen=True)
class StepWork:
    """Blocks of a step that are to be done, `todo` of its grid (z, y, x; bool), at a cost."""

    grid: BlockGrid
    todo: np.ndarray
    cost: StepCost


def wall_seconds(works: Iterable[StepWork], workers: int) -> float:
    """Return the seconds from when all workers ask for blocks until the last block is done.

    The workers serve all steps, in their order; a worker without a block of one step begins with
    the next. Only between steps of different blocks (super-blocks need all of theirs) everyone waits.
    """
    free, before = [0.0] * workers, None
    for work in works:
        if before is not None and work.grid != before.grid:
            free = [max(free)] * workers
        free = _served(work, free)
        before = work
    return max(free)


def _served(work: StepWork, free: Sequence[float]) -> list[float]:
    """Return when every worker is free, after blocks went to the first free one in their order."""
    sizes, cost = block_sizes(work.grid)[work.todo], work.cost
    seconds = cost.block_s + cost.voxel_s * sizes
    if len(seconds) > _EXACT:
        # The last block of one worker ends while others have none: half a block, on average.
        return [sum(free) / len(free) + cost.start_s + seconds.sum() / len(free) + 0.5 * seconds.max()
                ] * len(free)
    events = [(time, number, cost.start_s) for number, time in enumerate(free)]
    heapq.heapify(events)
    for needed in seconds.tolist():
        time, number, start = events[0]
        heapq.heapreplace(events, (time + start + needed, number, 0.0))
    return [time for time, _, _ in events]


def block_sizes(grid: BlockGrid) -> np.ndarray:
    """Return the voxels of every block, (z, y, x) int64."""
    z, y, x = (
        np.minimum(np.arange(1, n + 1) * b, v) - np.arange(n) * b
        for n, b, v in zip(grid.shape, grid.block_shape, grid.volume_shape, strict=True)
    )
    return np.einsum("z,y,x->zyx", z.astype(np.int64), y, x)
