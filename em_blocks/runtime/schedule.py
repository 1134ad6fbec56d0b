"""Blocks to workers, by daisy."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import daisy.logging as daisy_logging
import daisy.v2 as daisy
import numpy as np

from em_blocks.geometry import BlockGrid
from em_blocks.runtime.launch import worker_launcher
from em_blocks.tasks.base import BlockwiseTask


@dataclass(frozen=True)
class Work:
    """The blocks of one task that are to be done.

    Attributes
    ----------
    task : BlockwiseTask
    grid : BlockGrid
    todo : (z, y, x) bool array
        Blocks of `grid` to do.
    job_path : Path
        File that tells the workers what to do.
    logs : Path
        Folder for their output.
    """

    task: BlockwiseTask
    grid: BlockGrid
    todo: np.ndarray
    job_path: Path
    logs: Path


def schedule(works: Sequence[Work], observer) -> None:
    """Hand blocks to workers until none is left to try.

    Parameters
    ----------
    works : sequence of Work
        A block waits for those of the work before that its reads touch.
    observer
        Told about progress: ``on_start``, ``on_progress``, ``on_finish``.

    Raises
    ------
    KeyboardInterrupt
        After SIGINT, when the blocks in flight have ended.
    RuntimeError
        If daisy gives a task up.
    """
    # daisy makes a folder per task in it, of the task's name: that of the run.
    daisy_logging.set_log_basedir(str(works[0].logs))
    shared = len(works) > 1
    pipeline = functools.reduce(operator.add, (_task(work, shared) for work in works))
    daisy.Server().run_blockwise(
        pipeline,
        # Steps take turns: the workers of all of them together are no more than those of one.
        resources={"worker": max(work.task.num_workers for work in works)} if shared else None,
        progress=observer,
        host=works[0].task.scheduler_host,
        block_tracking=False,
        summary=False,
    )


def _task(work: Work, shared: bool) -> daisy.Task:
    task, grid = work.task, work.grid
    origin = daisy.Coordinate(0, 0, 0)
    context = daisy.Coordinate(task.read_context())
    write = daisy.Roi(origin, grid.block_shape)
    return daisy.Task(
        task_id=task.run,
        # The total of all reads: the first block writes from the origin on.
        total_roi=daisy.Roi(origin, grid.volume_shape).grow(context, context),
        read_roi=write.grow(context, context),
        write_roi=write,
        process_function=worker_launcher(task, work.job_path),
        read_write_conflict=False,
        fit="shrink",
        max_workers=min(task.num_workers, int(work.todo.sum())),
        max_retries=task.max_retries,
        # A worker holds several blocks, which wait for each other.
        timeout=task.block_timeout_s * task.concurrent_blocks,
        # Every exit of a worker counts, clean ones too; the monitor knows better when to stop.
        max_worker_restarts=1_000_000,
        requires={"worker": 1} if shared else None,
        skip_mask=~work.todo,
    )
