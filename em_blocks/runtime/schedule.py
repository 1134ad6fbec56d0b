"""Blocks to workers, by daisy."""

from __future__ import annotations

from pathlib import Path

import daisy.logging as daisy_logging
import daisy.v2 as daisy
import numpy as np

from em_blocks.geometry import BlockGrid
from em_blocks.runtime.launch import worker_launcher
from em_blocks.tasks.base import BlockwiseTask


def schedule(
    task: BlockwiseTask, grid: BlockGrid, todo: np.ndarray, job_path: Path, logs: Path, observer
) -> None:
    """Hand blocks to workers until none is left to try.

    Parameters
    ----------
    todo : (z, y, x) bool array
        Blocks of `grid` to do.
    job_path : Path
        File that tells the workers what to do.
    logs : Path
        Folder for their output.
    observer
        Told about progress: ``on_start``, ``on_progress``, ``on_finish``.

    Raises
    ------
    KeyboardInterrupt
        After SIGINT, when the blocks in flight have ended.
    RuntimeError
        If daisy gives the task up.
    """
    daisy_logging.set_log_basedir(str(logs))
    origin = daisy.Coordinate(0, 0, 0)
    block = daisy.Roi(origin, grid.block_shape)
    daisy.Server().run_blockwise(
        daisy.Task(
            task_id=task.run,
            total_roi=daisy.Roi(origin, grid.volume_shape),
            read_roi=block,
            write_roi=block,
            process_function=worker_launcher(task, job_path),
            read_write_conflict=False,
            fit="shrink",
            max_workers=task.num_workers,
            max_retries=task.max_retries,
            # A worker holds several blocks, which wait for each other.
            timeout=task.block_timeout_s * task.concurrent_blocks,
            # Every exit of a worker counts, clean ones too; the monitor knows better when to stop.
            max_worker_restarts=1_000_000,
            skip_mask=~todo,
        ),
        progress=observer,
        host=task.scheduler_host,
        block_tracking=False,
        summary=False,
    )
