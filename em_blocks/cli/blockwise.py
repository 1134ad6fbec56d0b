"""The command that every blockwise pipeline script is."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from em_blocks.cli.common import (
    config_argument,
    json_option,
    print_only_option,
    print_report,
    set_option,
    shows_errors,
)
from em_blocks.tasks.base import BlockwiseTask


def blockwise_command(task_type: type[BlockwiseTask], name: str, help: str) -> click.Command:
    """``NAME CONFIG``: run a task of `task_type` over all blocks that are not done."""

    @click.command(name=name, help=help)
    @config_argument
    @set_option
    @click.option("--dry-run", is_flag=True, help="Check everything, print the plan, stop.")
    @click.option("--overwrite", is_flag=True, help="Delete an earlier result of this run first.")
    @click.option("--adopt", is_flag=True, help="Keep finished blocks although settings differ.")
    @print_only_option
    @json_option
    @shows_errors
    def command(
        config: Path, overrides: tuple[str, ...], dry_run: bool, overwrite: bool, adopt: bool,
        print_only: bool, as_json: bool,
    ) -> None:
        from em_blocks.runtime.launchers.job_script import hand_script
        from em_blocks.runtime.planning.plan import plan
        from em_blocks.runtime.runs.block_shape import with_block_shape
        from em_blocks.runtime.scheduler.run import run_blockwise

        task = with_block_shape(task_type.from_file(config, overrides))
        if print_only:
            click.echo(hand_script(name, task, config, overrides), nl=False)
            return
        if dry_run:
            click.echo(plan(task, probe=False).text())
            return
        report = run_blockwise(task, overwrite=overwrite, adopt=adopt)
        print_report(report, as_json)
        sys.exit(report.exit_code)

    return command
