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

# By kind, since the modules of tasks load what only workers need.
PYRAMID = "downsample"


@dataclass(frozen=True)
class Trial:
    """What the blocks of a job cost, as far as it could be tried.

    Attributes
    ----------
    costs : dict
        By the name of the run of the step.
    unknown : dict
        Why there is none, by the name of the run.
    import_s : float
        Seconds that a worker loads libraries, beside those that every worker needs.
    processes : int
        Probe processes that worked at the same time.
    """

    costs: dict[str, StepCost]
    unknown: dict[str, str]
    import_s: float = 0.0
    processes: int = 0


def try_blocks(
    config: RunConfig, todo: dict[str, np.ndarray], *, uri: str, folder: Path
) -> Trial:
    """Measure the steps that have blocks to do.

    The first step that is left is tried on its own volumes, at blocks from all over them. Steps that
    read what earlier ones write are tried on a copy of a few neighbouring blocks (`small_copy`).
    What needs synapses that only the run itself will store cannot be tried.

    Parameters
    ----------
    todo : dict
        Blocks to do, bool (z, y, x), by the name of the run of the step.
    uri : str
        Database with the synapses that steps read.
    folder : Path
        Scratch.

    Raises
    ------
    ConfigError
        If a block fails, as it would in the run.
    """
    steps = config.steps()
    needed = [step for step in steps if todo[step.run].any()]
    chain = [step for step in _on_volumes_alone(config, steps) if step in needed]
    if len(chain) > 1:
        last = steps.index(chain[-1]) + 1
        trial = _on_a_copy(config, steps[:last], todo, folder)
    else:
        trial = _in_place(_ready(needed), todo, uri, folder)
    return _completed(trial, needed)


def processes(task: BlockwiseTask, n_blocks: int) -> int:
    """How many workers are tried at a time: all of them, while this machine can."""
    if not task.workers_here:
        return 1
    return max(1, min(task.num_workers, n_blocks, 2 * len(os.sched_getaffinity(0))))


def _on_volumes_alone(config: RunConfig, steps: Sequence[BlockwiseTask]) -> list[BlockwiseTask]:
    """The steps that a copy of the job's volumes is enough for."""
    if config.kind == PYRAMID or len(steps) == 1:
        return []  # of a small copy, a pyramid has no levels
    return list(itertools.takewhile(lambda step: not step.uses_rows, steps))


def _ready(needed: Sequence[BlockwiseTask]) -> list[BlockwiseTask]:
    """The steps that read nothing which is not there yet."""
    first_levels = (s for s in needed[1:] if s.kind == PYRAMID and s.level <= 1)
    return [*needed[:1], *first_levels]


def _completed(trial: Trial, needed: Sequence[BlockwiseTask]) -> Trial:
    """With the reasons why steps have no cost; levels of a pyramid have that of the one below."""
    costs, unknown = dict(trial.costs), {}
    before = None
    for step in needed:
        if step.run not in costs and step.kind == PYRAMID and before is not None:
            costs[step.run] = costs[before.run]
        elif step.run not in costs:
            unknown[step.run] = (
                f"{step.run} reads what {needed[0].run} and the steps after it will write; plan "
                "again when they are done"
            )
        before = step
    return replace(trial, costs=costs, unknown=unknown)


# -- in place -----------------------------------------------------------------------------


def _in_place(
    steps: Sequence[BlockwiseTask], todo: dict[str, np.ndarray], uri: str, folder: Path
) -> Trial:
    costs, import_s, n = {}, 0.0, 0
    for number, step in enumerate(steps):
        scratch = folder / f"step{number}"
        scratch.mkdir()
        blocks = np.argwhere(todo[step.run])
        n = processes(step, len(blocks))
        keys = _spread(blocks, n * max(BLOCKS_PER_PROCESS, step.concurrent_blocks))
        check_scratch(len(keys) * _bytes_out(step, math.prod(step.grid().block_shape)))
        with ProbePool([step.relocated(scratch)], scratch, uri=uri, n=n) as pool:
            samples = pool.do(0, keys)
            import_s = max(import_s, pool.import_s)
        costs[step.run] = cost_of(samples, concurrent=step.concurrent_blocks)
    return Trial(costs, {}, import_s, n)


def _bytes_out(step: BlockwiseTask, voxels: int) -> float:
    return sum(spec.nbytes(voxels) for spec in step.output_specs())


def _spread(blocks: np.ndarray, n: int) -> list[str]:
    """At most `n` of the blocks, from the first to the last."""
    chosen = np.unique(np.linspace(0, len(blocks) - 1, n).round().astype(int))
    return ["/".join(map(str, index)) for index in blocks[chosen].tolist()]


# -- on a copy ----------------------------------------------------------------------------


def _on_a_copy(
    config: RunConfig, steps: Sequence[BlockwiseTask], todo: dict[str, np.ndarray], folder: Path
) -> Trial:
    grid = steps[0].grid()
    wanted = np.argwhere(todo[steps[0].run])
    if not len(wanted):  # the first steps are done, but what they wrote is made again on the copy
        wanted = np.argwhere(np.ones(grid.shape, bool))
    n = processes(steps[0], len(wanted))
    small = small_copy(
        config, grid, wanted, blocks=max(BLOCKS_PER_PROCESS, 2 * n), levels=_levels(steps),
        folder=folder,
    ).steps()
    small = small[: _last_like(steps[-1], small) + 1]
    check_scratch(sum(_bytes_out(step, math.prod(step.grid().volume_shape)) for step in small))
    costs = {}
    with ProbePool(small, folder, uri="", n=n) as pool:
        for number, step in enumerate(small):
            samples = pool.do(number, _unmasked(step))
            largest = max(s.voxels for s in samples)
            for like in (s for s in steps if _last_like(s, small) == number):
                size = np.prod(np.minimum(like.grid().block_shape, like.grid().volume_shape))
                costs[like.run] = cost_of(
                    samples, concurrent=step.concurrent_blocks, proportional=bool(size > 2 * largest)
                )
        return Trial(costs, {}, pool.import_s, n)


def _levels(steps: Sequence[BlockwiseTask]) -> int:
    """Of super-blocks."""
    return sum(step.kind == "agglomerate_graph" for step in steps)


def _last_like(step: BlockwiseTask, small: Sequence[BlockwiseTask]) -> int:
    """Number of the step of the copy that does the same; of higher levels, which it lacks, the last."""
    for number, other in enumerate(small):
        if other.run == step.run:
            return number
    return max(number for number, other in enumerate(small) if other.kind == step.kind)


def _unmasked(step: BlockwiseTask) -> list[str]:
    grid = step.grid()
    masked = masked_blocks(step.mask, grid) if step.mask else np.zeros(grid.shape, bool)
    return [block.key for block in grid.blocks() if not masked[block.index]]
