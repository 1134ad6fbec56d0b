"""A few blocks of every step of a job, done in a scratch folder and measured."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from em_blocks.runtime.planning.forecast import StepCost, cost_of
from em_blocks.runtime.planning.probe_pool import ProbePool
from em_blocks.runtime.planning.small_copy import check_scratch, small_copy
from em_blocks.tasks.base import BlockwiseTask, RunConfig
from em_blocks.tasks.masks import masked_blocks

BLOCKS_PER_PROCESS = 3


@dataclass(frozen=True)
class Trial:
    """What the blocks of a job cost, as far as it could be tried.

    Attributes
    ----------
    costs : dict
        By the name of the run of the step.
    unknown : dict
        Why there is none, by the name of the run.
    start_s : float
        Seconds until all workers have started, before they open a step.
    """

    costs: dict[str, StepCost]
    unknown: dict[str, str]
    start_s: float = 0.0


def try_blocks(
    config: RunConfig, todo: dict[str, np.ndarray], *, uri: str, folder: Path
) -> Trial:
    """Measure the steps that have blocks to do.

    The first step that is left, and all that read nothing from earlier ones, are tried on their own
    volumes, at blocks from all over them. Where others follow, all are tried on a copy of a few
    neighbouring blocks (`small_copy`). What needs rows that only the run itself will store cannot
    be tried.

    Parameters
    ----------
    todo : dict
        Blocks to do, bool (z, y, x), by the name of the run of the step.
    uri : str
        Database with the rows that steps read.
    folder : Path
        Scratch.

    Raises
    ------
    ConfigError
        If a block fails, as it would in the run.
    """
    steps = config.steps()
    needed = [step for step in steps if todo[step.run].any()]
    alone = [step for step in steps[1:] if step.is_independent()]
    chain = list(itertools.takewhile(lambda step: not step.uses_rows, steps))
    if not alone and len(steps) > 1 and sum(step in needed for step in chain) > 1:
        last = max(chain.index(step) for step in needed if step in chain)
        trial = _on_a_copy(config, chain[: last + 1], todo, folder)
    else:
        in_place = [*needed[:1], *(step for step in alone if step in needed[1:])]
        trial = _in_place(in_place, todo, uri, folder)
    return _completed(trial, needed)


def processes(task: BlockwiseTask, n_blocks: int) -> int:
    """Return how many workers are tried at a time: all of them, while this machine can."""
    if not task.workers_here:
        return 1
    return max(1, min(task.num_workers, n_blocks, 2 * len(os.sched_getaffinity(0))))


def _completed(trial: Trial, needed: Sequence[BlockwiseTask]) -> Trial:
    """Return the trial with the costs that it lacks: those of a step of the same kind, or why none."""
    by_kind = {step.kind: trial.costs[step.run] for step in needed if step.run in trial.costs}
    borrowed = {step.run: by_kind[step.kind] for step in needed if step.kind in by_kind}
    unknown = {
        step.run: f"{step.run} reads what {needed[0].run} and the steps after it will write; plan "
        "again when they are done" for step in needed if step.kind not in by_kind
    }
    return replace(trial, costs=borrowed | trial.costs, unknown=unknown)


def _in_place(
    steps: Sequence[BlockwiseTask], todo: dict[str, np.ndarray], uri: str, folder: Path
) -> Trial:
    """Try blocks from all over the volumes of steps that can be tried on their own."""
    costs, start_s = {}, 0.0
    for number, step in enumerate(steps):
        scratch = folder / f"step{number}"
        scratch.mkdir()
        blocks = np.argwhere(todo[step.run])
        n = processes(step, len(blocks))
        keys = _spread(blocks, n * max(BLOCKS_PER_PROCESS, step.concurrent_blocks))
        check_scratch(len(keys) * _bytes_out(step, math.prod(step.grid().block_shape)))
        with ProbePool([step.relocated(scratch)], scratch, uri=uri, n=n) as pool:
            samples = pool.do(0, keys)
            start_s = max(start_s, pool.start_s)
        costs[step.run] = cost_of(samples, concurrent=step.concurrent_blocks)
    return Trial(costs, {}, start_s)


def _bytes_out(step: BlockwiseTask, voxels: int) -> float:
    return sum(spec.nbytes(voxels) for spec in step.output_specs())


def _spread(blocks: np.ndarray, n: int) -> list[str]:
    """Return at most `n` of the blocks, from the first to the last."""
    chosen = np.unique(np.linspace(0, len(blocks) - 1, n).round().astype(int))
    return ["/".join(map(str, index)) for index in blocks[chosen].tolist()]


def _on_a_copy(
    config: RunConfig, steps: Sequence[BlockwiseTask], todo: dict[str, np.ndarray], folder: Path
) -> Trial:
    """Try all `steps`, one after the other, on a copy of a few blocks."""
    grid = steps[0].grid()
    wanted = np.argwhere(todo[steps[0].run])
    if not len(wanted):  # the first steps are done, but their outputs are made again on the copy
        wanted = np.argwhere(np.ones(grid.shape, bool))
    n = processes(steps[0], len(wanted))
    made = small_copy(config, grid, wanted, blocks=max(BLOCKS_PER_PROCESS, 2 * n), folder=folder)
    names = {step.run for step in steps}
    small = [step for step in made.steps() if step.run in names]
    check_scratch(sum(_bytes_out(step, math.prod(step.grid().volume_shape)) for step in small))
    originals, costs = {step.run: step for step in steps}, {}
    with ProbePool(small, folder, uri="", n=n) as pool:
        for number, step in enumerate(small):
            samples, whole = pool.do(number, _unmasked(step)), originals[step.run].grid()
            largest = math.prod(map(min, zip(whole.block_shape, whole.volume_shape, strict=True)))
            costs[step.run] = cost_of(
                samples, concurrent=step.concurrent_blocks,
                proportional=largest > 2 * max(s.voxels for s in samples),
            )
        return Trial(costs, {}, pool.start_s)


def _unmasked(step: BlockwiseTask) -> list[str]:
    grid = step.grid()
    masked = masked_blocks(step.mask, grid) if step.mask else np.zeros(grid.shape, bool)
    return [block.key for block in grid.blocks() if not masked[block.index]]
