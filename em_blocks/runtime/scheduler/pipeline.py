"""All steps of a config, to the end of the last one."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from em_blocks.db.connect import database_uri
from em_blocks.errors import EmBlocksError
from em_blocks.runtime.runs.report import RunReport, write_summaries
from em_blocks.runtime.scheduler.run import run_blockwise, run_steps
from em_blocks.tasks.base import BlockwiseTask, RunConfig


def run_config(config: RunConfig, **options) -> list[RunReport]:
    """Run all steps of `config` and publish its result; see `run_all`."""
    reports = run_all(config.steps(), **options)
    if all(report.ok for report in reports):
        config.publish()
    return reports


def run_all(
    steps: Sequence[BlockwiseTask], *, console: Console | None = None, **options
) -> list[RunReport]:
    """Run all steps, with the options of `run_steps`; return reports of those that started.

    They run block by block if their blocks are of the same voxels, and else one after the other.
    """
    console = console or Console(stderr=True)
    grids = [task.grid() for task in steps]
    if len({(grid.frame, grid.volume_shape) for grid in grids}) == 1:
        return run_steps(steps, console=console, **options)
    reports, home = [], steps[-1].home
    # Held meanwhile: each step would start and stop an embedded server.
    with database_uri(steps[-1].db_host, home):
        for task in steps:
            try:
                reports.append(run_blockwise(task, console=console, **options))
            except EmBlocksError as error:
                if reports:
                    write_summaries(home, reports, console, refused=(task.run, str(error)))
                raise
            if not reports[-1].ok:
                break
    write_summaries(home, reports, console)
    return reports
