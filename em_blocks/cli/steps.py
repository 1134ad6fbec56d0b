"""The command of a pipeline whose steps are blockwise tasks, each needing those before it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from em_blocks.cli.common import (
    config_argument,
    json_option,
    print_report,
    set_option,
    shows_errors,
)
from em_blocks.tasks.base import BlockwiseTask


def steps_command(task_type: type[BlockwiseTask], name: str, help: str) -> click.Command:
    """``NAME CONFIG``: run the ``steps()`` of a task one after the other, then ``finish()`` it.

    Each step is a run of its own in the database; blocks that are done are skipped, so a command
    that died is simply repeated. The last step has the run name of the config.
    """

    @click.command(name=name, help=help)
    @config_argument
    @set_option
    @click.option("--dry-run", is_flag=True, help="Check everything, print the plan, stop.")
    @click.option("--overwrite", is_flag=True, help="Delete an earlier result of these runs first.")
    @click.option("--adopt", is_flag=True, help="Keep finished blocks although settings differ.")
    @click.option("--retry", is_flag=True, help="Also try quarantined blocks again.")
    @json_option
    @shows_errors
    def command(
        config: Path, overrides: tuple[str, ...], dry_run: bool, as_json: bool, retry: bool, **options
    ) -> None:
        from em_blocks.runtime.plan import plan
        from em_blocks.runtime.run import run_blockwise

        task = task_type.from_file(config, overrides)
        steps = task.steps()
        for step in steps:
            step.check()  # what is wrong with the last step is said before the first one starts
        if dry_run:
            click.echo("\n\n".join(plan(step, probe=False).text() for step in steps))
            return
        reports = []
        for step in steps:
            reports.append(run_blockwise(step, requeue=retry, **options))
            if not reports[-1].ok:
                print_report(reports[-1], as_json)
                sys.exit(reports[-1].exit_code)
        task.finish()
        _print(reports, as_json)

    return command


def _print(reports: list, as_json: bool) -> None:
    """All steps, which are done: one line each."""
    if as_json:
        click.echo(json.dumps([asdict(report) for report in reports], indent=2, default=str))
        return
    table = Table(title=f"{reports[-1].run}: done")
    for name in ("step", "run", "blocks", "done now", "seconds", "Mvoxel/s"):
        table.add_column(name, justify="left" if name in ("step", "run") else "right")
    for report in reports:
        table.add_row(
            report.task, report.run, str(report.blocks["total"]), str(report.blocks["computed"]),
            f"{report.wall_s:.1f}", f"{report.mvox_s:.3g}",
        )
    console = Console()
    console.print(table)
    for name, count in {k: v for r in reports for k, v in r.counts.items()}.items():
        console.print(f"{name}: {count}", markup=False)
    for name, path in reports[-1].outputs.items():
        console.print(f"{name}: {path}", markup=False, soft_wrap=True)
