"""The command of a pipeline whose steps are blockwise tasks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from em_blocks.cli.common import (
    config_argument,
    json_option,
    print_only_option,
    print_report,
    set_option,
    shows_errors,
)
from em_blocks.errors import EmBlocksError
from em_blocks.json_text import json_text
from em_blocks.tasks.base import BlockwiseTask, RunConfig

if TYPE_CHECKING:
    from em_blocks.runtime.runs.report import RunReport

def steps_command(
    task_type: type[RunConfig], name: str, help: str, *,
    publish: Callable[[RunConfig], None] = lambda task: None,
) -> click.Command:
    """``NAME CONFIG``: all steps that the config of `task_type` stands for.

    Each step is a run of its own in the database; blocks that are done are skipped, so a command
    that died is simply repeated.

    Parameters
    ----------
    publish : function of the task, optional
        Called when all steps are done.
    """

    @click.command(name=name, help=help)
    @config_argument
    @set_option
    @click.option("--dry-run", is_flag=True, help="Check everything, print the plan, stop.")
    @click.option("--overwrite", is_flag=True, help="Delete an earlier result of these runs first.")
    @click.option("--adopt", is_flag=True, help="Keep finished blocks although settings differ.")
    @click.option("--retry", is_flag=True, help="Also try quarantined blocks again.")
    @print_only_option
    @json_option
    @shows_errors
    def command(
        config: Path, overrides: tuple[str, ...], dry_run: bool, print_only: bool, as_json: bool,
        retry: bool, **options,
    ) -> None:
        from em_blocks.runtime.launchers.job_scripts import hand_script
        from em_blocks.runtime.planning.plan import plan
        from em_blocks.runtime.runs.preflight import check_steps

        task = task_type.from_file(config, overrides)
        tasks = task.steps()
        if print_only:
            click.echo(hand_script(name, tasks[0], config, overrides), nl=False)
            return
        check_steps(tasks)  # what is wrong with the last step is said before the first one starts
        if dry_run:
            click.echo("\n\n".join(plan(step, probe=False).text() for step in tasks))
            return
        reports = run_all(tasks, requeue=retry, **options)
        failed = next((report for report in reports if not report.ok), None)
        if failed is not None:
            print_report(failed, as_json)
            sys.exit(failed.exit_code)
        publish(task)
        _print(reports, as_json)

    return command


def run_all(tasks: list[BlockwiseTask], **options) -> list[RunReport]:
    """Run all steps, with the options of `run_steps`; reports of those that started.

    They run block by block if their blocks are of the same voxels, and else one after the other.
    """
    from em_blocks.db.connect import database_uri
    from em_blocks.runtime.runs.report import write_summaries
    from em_blocks.runtime.scheduler.run import run_blockwise, run_steps

    grids = [task.grid() for task in tasks]
    if len({(grid.frame, grid.volume_shape) for grid in grids}) == 1:
        return run_steps(tasks, **options)
    reports, home, console = [], tasks[-1].home, Console(stderr=True)
    # Held meanwhile: each step would start and stop an embedded server.
    with database_uri(tasks[-1].db_host, home):
        for task in tasks:
            try:
                reports.append(run_blockwise(task, **options))
            except EmBlocksError as error:
                if reports:
                    write_summaries(home, reports, console, refused=(task.run, str(error)))
                raise
            if not reports[-1].ok:
                break
    write_summaries(home, reports, console)
    return reports


def _print(reports: list[RunReport], as_json: bool) -> None:
    """All steps, which are done: one line each."""
    if as_json:
        click.echo(json_text([asdict(report) for report in reports], indent=2, default=str))
        return
    table = Table(title=f"{reports[-1].run}: done")
    table.add_column("run", overflow="fold")  # names the step; cut off it would name nothing
    for name in ("blocks", "done now", "seconds", "Mvoxel/s"):
        table.add_column(name, justify="right")
    for report in reports:
        table.add_row(
            report.run, str(report.blocks["total"]), str(report.blocks["computed"]),
            f"{report.wall_s:.1f}", f"{report.mvox_s:.3g}",
        )
    console = Console()
    console.print(table)
    for name, count in {k: v for r in reports for k, v in r.counts.items()}.items():
        console.print(f"{name}: {count}", markup=False)
    for name, path in reports[-1].outputs.items():
        console.print(f"{name}: {path}", markup=False, soft_wrap=True)
