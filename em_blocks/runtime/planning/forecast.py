"""From measured blocks to the time of a run."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from em_blocks.geometry import BlockGrid, Triple
from em_blocks.runtime.planning.probe_pool import Sample

_EXACT = 4000
"""Blocks up to which every single one is followed; above, the end of a step hardly matters."""

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
        Of `voxel_s`, what only reading takes while nothing is computed.
    largest : int
        Voxels of the largest block that was measured.
    bytes_in, bytes_out : float or None
        Per voxel written, from and to files; None where none were counted.
    memory_mb, memory_before_mb : float
        Peak of a worker, and what it had before its first block.
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
        """Of one block that is not a worker's first."""
        return self.block_s + self.voxel_s * voxels

    def peak_mb(self, voxels: float) -> float:
        """Peak memory of a worker with blocks of so many voxels."""
        grown = (self.memory_mb - self.memory_before_mb) * voxels / self.largest
        return self.memory_before_mb + grown


def cost_of(samples: Sequence[Sample], *, concurrent: int, proportional: bool = False) -> StepCost:
    """The cost that explains the samples of a step.

    Parameters
    ----------
    concurrent : int
        Blocks that a worker holds at a time. If more than one, what counts is how quickly one
        follows the other, not how long each is held.
    proportional : bool
        Whether the blocks of the run are much larger than those measured.
    """
    first, later = [], []
    for _, group in itertools.groupby(sorted(samples, key=lambda s: s.process), lambda s: s.process):
        head, *tail = sorted(group, key=lambda s: s.end)
        first.append(head)
        later += _intervals(head, tail, concurrent)
    voxels, seconds = (np.array(values, float) for values in zip(*later, strict=True))
    block_s, voxel_s = _line(voxels, seconds, proportional=proportional)
    begin = {s.process: min(o.begin for o in samples if o.process == s.process) for s in first}
    extra = [s.end - begin[s.process] - block_s - voxel_s * s.voxels for s in first]
    reading = sum(s.seconds.get("read", 0.0) for s in samples) / sum(s.voxels for s in samples)
    return StepCost(
        start_s=max(0.0, float(np.mean(extra))), block_s=block_s, voxel_s=voxel_s,
        read_s=min(reading, voxel_s) if concurrent == 1 else 0.0,
        largest=max(s.voxels for s in samples),
        bytes_in=_per_voxel(samples, "bytes_read"), bytes_out=_per_voxel(samples, "bytes_written"),
        memory_mb=max(s.memory_mb for s in samples),
        memory_before_mb=max(s.memory_before_mb for s in samples),
    )


def _intervals(
    head: Sample, tail: Sequence[Sample], concurrent: int
) -> Iterator[tuple[int, float]]:
    """Voxels and seconds of all blocks of a process but the first."""
    before = head
    for sample in tail:
        begin = before.end if concurrent > 1 else sample.begin
        yield sample.voxels, max(1e-6, sample.end - begin)
        before = sample


def _line(
    voxels: np.ndarray, seconds: np.ndarray, *, proportional: bool
) -> tuple[float, float]:
    """Seconds per block and per voxel, neither negative.

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


def _per_voxel(samples: Sequence[Sample], name: str) -> float | None:
    """Bytes of all blocks of every process since it opened the step, per voxel."""
    total = 0
    for process in {s.process for s in samples}:
        total += max(getattr(s, name) for s in samples if s.process == process)
    return total / sum(s.voxels for s in samples) if total else None


@dataclass(frozen=True)
class StepWork:
    """Blocks of a step that are to be done.

    Attributes
    ----------
    grid : BlockGrid
    todo : (z, y, x) bool array
    context : (3,) int
        Voxels around its own that a block reads of the step before.
    cost : StepCost
    concurrent : int
        Blocks that a worker holds at a time.
    """

    grid: BlockGrid
    todo: np.ndarray
    context: Triple
    cost: StepCost
    concurrent: int = 1


def wall_seconds(works: Sequence[StepWork], workers: int) -> float:
    """Seconds from when all workers ask for blocks until the last block is done.

    The workers serve all steps, in their order. A block waits for those of the step before that
    its reads touch.
    """
    works = [work for work in works if work.todo.any()]
    if sum(int(work.todo.sum()) for work in works) <= _EXACT:
        return _followed(works, workers)
    return sum(_evenly_spread(work, workers) for work in works)


def _evenly_spread(work: StepWork, workers: int) -> float:
    n, cost = int(work.todo.sum()), work.cost
    active = min(n, workers)
    # The last block of one worker ends while others have none: half a block, on average.
    rest = 0.5 * cost.seconds(int(sizes(work.grid).max())) * (active > 1)
    return cost.start_s + total_seconds(work) / active + rest


def total_seconds(work: StepWork) -> float:
    """Of all blocks to do, one after the other, without any start."""
    voxels = sizes(work.grid)[work.todo]
    return float(work.cost.block_s * len(voxels) + work.cost.voxel_s * voxels.sum())


def sizes(grid: BlockGrid) -> np.ndarray:
    """Voxels of every block, (z, y, x) int64."""
    z, y, x = (
        np.minimum(np.arange(1, n + 1) * b, v) - np.arange(n) * b
        for n, b, v in zip(grid.shape, grid.block_shape, grid.volume_shape, strict=True)
    )
    return np.einsum("z,y,x->zyx", z.astype(np.int64), y, x)


Key = tuple[int, int, int, int]
"""Step and block index."""


def _followed(works: Sequence[StepWork], workers: int) -> float:
    """By following every block."""
    waits, needed_by = _dependencies(works)
    ready = [key for key in waits if not waits[key]]
    heapq.heapify(ready)
    held = min((work.concurrent for work in works), default=1)
    # (when, order, worker, block that ends then); at first all are free, and one takes all it can hold.
    events = [(0.0, n, n // held, None) for n in range(workers * held)]
    order = itertools.count(len(events))
    free_at, opened, idle, now = [0.0] * workers, set(), [], 0.0
    voxels = [sizes(work.grid).tolist() for work in works]
    while events:
        now, _, worker, ended = heapq.heappop(events)
        idle.append(worker)
        for key in needed_by.get(ended, ()):
            waits[key] -= 1
            if not waits[key]:
                heapq.heappush(ready, key)
        while ready and idle:
            key, worker = heapq.heappop(ready), idle.pop(0)
            cost = works[key[0]].cost
            z, y, x = key[1:]
            seconds = cost.seconds(voxels[key[0]][z][y][x])
            if (worker, key[0]) not in opened:
                opened.add((worker, key[0]))
                seconds += cost.start_s
            free_at[worker] = max(now, free_at[worker]) + seconds
            heapq.heappush(events, (free_at[worker], next(order), worker, key))
    return now


def _dependencies(works: Sequence[StepWork]) -> tuple[dict[Key, int], dict[Key, list[Key]]]:
    """How many blocks each one waits for, and who waits for each."""
    waits: dict[Key, int] = {}
    needed_by: dict[Key, list[Key]] = {}
    for number, work in enumerate(works):
        before = works[number - 1] if number else None
        for index in map(tuple, np.argwhere(work.todo).tolist()):
            key = (number, *index)
            waits[key] = 0
            if before is None or before.grid.volume_shape != work.grid.volume_shape:
                continue
            for other in before.grid.within(work.grid.block(index).write_box.grow(work.context)):
                if before.todo[other.index]:
                    needed_by.setdefault((number - 1, *other.index), []).append(key)
                    waits[key] += 1
    return waits, needed_by


def at_amplification(cost: StepCost, factor: float) -> StepCost:
    """The cost if blocks read `factor` times as much per voxel that they write."""
    return replace(cost, voxel_s=cost.voxel_s + (factor - 1) * cost.read_s)
