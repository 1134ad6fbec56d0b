"""Another block shape that would take less time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from em_blocks.errors import EmBlocksError
from em_blocks.geometry import Triple
from em_blocks.runtime.planning.figures import BetterBlock
from em_blocks.runtime.planning.forecast import StepWork, block_sizes, wall_seconds
from em_blocks.tasks.base import BlockwiseTask, RunConfig

LEAST_GAIN = 0.10
"""Less is within what two runs differ by."""

LEAST_SAVED_READS = 0.15
BLOCKS_PER_WORKER = 4
_ROUNDS = 6

Steps = Sequence[BlockwiseTask]


def better_block(
    config: RunConfig, steps: Steps, works: dict[str, StepWork], *, probed: bool, begun: bool
) -> BetterBlock | None:
    """Return a block shape with which all blocks take 10 % less time, by what the probe measured.

    A block may be doubled where every worker still gets four blocks and its memory is enough; it may
    be halved where there are fewer. It stays whole chunks and tiles. Without a probe, shapes that
    read at least 15 % less are proposed.

    Parameters
    ----------
    works : dict of StepWork
        Of the steps that have blocks to do and were tried, by the name of their run.
    begun : bool
        Whether blocks are done: a run keeps its blocks, so then nothing is proposed.
    """
    if begun or "block_shape" not in type(config).model_fields or (probed and not works):
        return None
    known = {
        step.kind: (works[step.run], amplification(step))
        for step in reversed(steps) if step.run in works
    }

    def seconds(steps: Steps) -> float:
        found = (_with_blocks(*known[step.kind], step) for step in steps if step.kind in known)
        return wall_seconds(found, steps[0].num_workers)

    judge = seconds if probed else _most_reads
    now, shape = judge(steps), steps[0].grid().block_shape
    least, best = _descend(config, steps, shape, now, judge, known)
    if best == shape or least > (1 - (LEAST_GAIN if probed else LEAST_SAVED_READS)) * now:
        return None
    reads = amplification(_steps(config, best)[0])
    return BetterBlock(best, reads, least if probed else None, now if probed else None)


def _descend(
    config: RunConfig, steps: Steps, shape: Triple, least: float, judge: Callable[[Steps], float],
    known: dict,
) -> tuple[float, Triple]:
    """Double or halve the best of the axes while that is better; return the least cost and its shape."""
    grid = steps[0].grid()
    few = grid.n_blocks < BLOCKS_PER_WORKER * steps[0].num_workers
    for _ in range(_ROUNDS):
        found = [
            (judge(candidate), other) for other in _neighbours(shape, grid.volume_shape, few=few)
            if (candidate := _steps(config, other)) and (few or _fits(candidate, known))
        ]
        cost, other = min(found, default=(math.inf, shape))
        if cost >= least:
            break
        least, shape = cost, other
    return least, shape


def _neighbours(shape: Triple, volume_shape: Triple, *, few: bool) -> Iterator[Triple]:
    """Yield twice or, of few blocks, half the voxels along one axis."""
    for axis, size in enumerate(shape):
        if not few and size < volume_shape[axis]:
            yield (*shape[:axis], 2 * size, *shape[axis + 1 :])
        elif few and size % 2 == 0:
            yield (*shape[:axis], size // 2, *shape[axis + 1 :])


def _steps(config: RunConfig, shape: Triple) -> Steps | None:
    """Return the steps with another block shape; None if it does not suit them."""
    try:
        steps = config.model_validate(
            {**config.model_dump(mode="json"), "block_shape": shape}
        ).steps()
        steps[0].check_alignment()
        steps[0].check()
    except EmBlocksError:
        return None
    return steps


def _fits(candidate: Steps, known: dict) -> bool:
    """Tell whether all workers get four blocks that their memory can hold."""
    first = candidate[0]
    if first.grid().n_blocks < BLOCKS_PER_WORKER * first.num_workers:
        return False
    needed = max(
        1e6 * known[step.kind][0].cost.peak_mb(block_sizes(step.grid()).max())
        if step.kind in known else step.worker_bytes()
        for step in candidate
    )
    return needed < first.memory_of_worker()


def _with_blocks(work: StepWork, reads: float, step: BlockwiseTask) -> StepWork:
    """Return the work of all blocks of a step, whose measured blocks read `reads` voxels per voxel."""
    grid, cost = step.grid(), work.cost
    more = (amplification(step) / reads - 1) * cost.read_s
    cost = replace(cost, voxel_s=cost.voxel_s + more)
    return StepWork(grid, np.ones(grid.shape, bool), cost)


def _most_reads(steps: Steps) -> float:
    return max(map(amplification, steps))


def amplification(task: BlockwiseTask) -> float:
    """Return the voxels that a whole block reads per voxel that it writes."""
    return math.prod(task.read_shape()) / math.prod(task.grid().block_shape)
