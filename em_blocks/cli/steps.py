"""The command of a pipeline: all steps that its config stands for."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
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
from em_blocks.tasks.base import BlockwiseTask, RunConfig

if TYPE_CHECKING:
    from em_blocks.runtime.runs.report import RunReport


CONFIG_HELP = """CONFIG is a JSON file of the keys in docs/configs.md. Blocks that the database lists
as done are skipped, so a stopped command is simply repeated."""


@dataclass(frozen=True)
class ExtraOption:
    """An option of one pipeline that replaces a key of its config.

    Attributes
    ----------
    option : click.Option
    override : function of its value
        Returns KEY=VALUE, as of ``--set``.
    before : function of the config and of ``--dry-run``, optional
        Called before the steps run, if the option is given.
    """

    option: click.Option
    override: Callable[[object], str]
    before: Callable[[RunConfig, bool], None] = lambda config, dry_run: None


@shows_errors
def kind_command(kind: str) -> click.Command:
    """Return ``KIND CONFIG`` for a kind of task; its class says what it does."""
    task_type = task_class(kind)
    help = f"{inspect.getdoc(task_type)}\n\n{CONFIG_HELP}"
    return steps_command(task_type, kind.replace("_", "-"), help)


def steps_command(
    task_type: type[RunConfig], name: str, help: str, *, extra_options: Sequence[ExtraOption] = ()
) -> click.Command:
    """Return ``NAME CONFIG``: all steps that the config of `task_type` stands for.

    Each step is a run of its own in the database; blocks that are done are skipped, so a command
    that died is simply repeated.
    """

    @click.command(name=name, help=help)
    @config_argument
    @set_option
    @click.option("--dry-run", is_flag=True, help="Check everything, print the plan, stop.")
    @click.option("--overwrite", is_flag=True, help="Delete an earlier result first.")
    @click.option("--adopt", is_flag=True, help="Keep finished blocks although settings differ.")
    @click.option("--retry", is_flag=True, help="Also try quarantined blocks again.")
    @print_only_option
    @json_option
    @shows_errors
    def command(config: Path, overrides: tuple[str, ...], dry_run: bool, **options) -> None:
        from em_blocks.runtime.runs.block_shape import with_block_shape

        values = [(extra, options.pop(extra.option.name)) for extra in extra_options]
        given = [(extra, value) for extra, value in values if value not in (None, ())]
        overrides += tuple(extra.override(value) for extra, value in given)
        task = with_block_shape(task_type.from_file(config, overrides))
        for extra, _ in given:
            extra.before(task, dry_run)
        if options.pop("print_only"):
            _print_script(name, task, config, overrides)
        else:
            run_steps(task, dry_run=dry_run, **options)

    command.params[1:1] = [extra.option for extra in extra_options]
    return command


def _print_script(
    name: str, task: RunConfig, config: Path, overrides: tuple[str, ...]
) -> None:
    from em_blocks.runtime.launchers.job_script import hand_script

    click.echo(hand_script(name, task.steps()[0], config, overrides), nl=False)


def run_steps(task: RunConfig, *, dry_run: bool, **options) -> None:
    """Run all steps of a config, or print their plan; `options` are those of a command of steps."""
    if dry_run:
        _print_plan(task)
    else:
        _run(task, **options)


def _print_plan(task: RunConfig) -> None:
    from em_blocks.runtime.planning.plan import plan
    from em_blocks.runtime.planning.text import plan_text
    from em_blocks.runtime.runs.preflight import check_steps

    steps = task.steps()
    if len(steps) > 1:  # errors of the last step are reported before the plan of the first one
        check_steps(steps)
    click.echo("\n\n".join(plan_text(plan(step, probe=False)) for step in steps))


def _run(task: RunConfig, *, as_json: bool, retry: bool, **options) -> None:
    """Run all steps and print how they ended: a single one in detail."""
    from em_blocks.runtime.runs.preflight import check_steps
    from em_blocks.runtime.scheduler.pipeline import run_config

    is_single = type(task).steps is BlockwiseTask.steps
    if not is_single:  # errors of the last step are reported before the first one starts
        check_steps(task.steps())
    reports = run_config(task, requeue=retry, **options)
    failed = next((report for report in reports if not report.ok), None)
    if failed is not None or is_single:
        report = failed or reports[0]
        print_report(report, as_json)
        sys.exit(report.exit_code)
    _print(reports, as_json, task.results())


def _print(reports: list[RunReport], as_json: bool, results: dict[str, str]) -> None:
    """Print all steps, which are done: one line each."""
    if as_json:
        click.echo(json_text([asdict(report) for report in reports], indent=2, default=str))
        return
    table = Table(title=f"{reports[-1].run}: done")
    table.add_column("run", overflow="fold")  # names the step; cut off, it would name none
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
    for name, path in (results or reports[-1].outputs).items():
        console.print(f"{name}: {path}", markup=False, soft_wrap=True)
