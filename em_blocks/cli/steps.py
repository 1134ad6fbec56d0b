"""The command of a pipeline whose steps are blockwise tasks."""

from __future__ import annotations

import inspect
import sys
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
from em_blocks.json_text import json_text
from em_blocks.tasks import task_class
from em_blocks.tasks.base import RunConfig

if TYPE_CHECKING:
    from em_blocks.runtime.runs.report import RunReport


@shows_errors
def kind_command(kind: str, name: str) -> click.Command:
    """``NAME CONFIG`` for a kind of task; its class says what it does."""
    task_type = task_class(kind)
    return steps_command(task_type, name, inspect.getdoc(task_type) or f"Run a task of kind {kind!r}.")


def steps_command(task_type: type[RunConfig], name: str, help: str) -> click.Command:
    """``NAME CONFIG``: all steps that the config of `task_type` stands for.

    Each step is a run of its own in the database; blocks that are done are skipped, so a command
    that died is simply repeated.
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
        from em_blocks.runtime.launchers.job_script import hand_script
        from em_blocks.runtime.planning.plan import plan
        from em_blocks.runtime.runs.block_shape import with_block_shape
        from em_blocks.runtime.runs.preflight import check_steps
        from em_blocks.runtime.scheduler.pipeline import run_config

        task = with_block_shape(task_type.from_file(config, overrides))
        tasks = task.steps()
        if print_only:
            click.echo(hand_script(name, tasks[0], config, overrides), nl=False)
            return
        check_steps(tasks)  # what is wrong with the last step is said before the first one starts
        if dry_run:
            click.echo("\n\n".join(plan(step, probe=False).text() for step in tasks))
            return
        reports = run_config(task, requeue=retry, **options)
        failed = next((report for report in reports if not report.ok), None)
        if failed is not None:
            print_report(failed, as_json)
            sys.exit(failed.exit_code)
        _print(reports, as_json)

    return command


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
