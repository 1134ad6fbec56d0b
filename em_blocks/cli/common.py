"""What all commands share: errors as one paragraph, configs, the report of a run."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from em_blocks.config import read_json
from em_blocks.errors import EmBlocksError
from em_blocks.tasks import task_class
from em_blocks.tasks.base import BlockwiseTask

config_argument = click.argument("config", type=click.Path(path_type=Path))
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE",
    help="Replace a value of the config; may be repeated.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def shows_errors(command: Callable) -> Callable:
    """Turn an `EmBlocksError` into its paragraph and its exit code."""

    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s")
        try:
            return command(*args, **kwargs)
        except EmBlocksError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)

    return wrapped


def load_task(config: Path, overrides: tuple[str, ...] = ()) -> BlockwiseTask:
    """The task of a config file, whatever its kind."""
    return task_class(read_json(config).get("kind")).from_file(config, overrides)


def print_report(report, as_json: bool) -> None:
    """Show how a run ended: JSON on stdout, or a table and what to do about failures."""
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2, default=str))
        return
    console = Console()
    console.print(_table(report))
    if report.reason and not report.ok:
        console.print(f"Stopped: {report.reason}", markup=False)
    for failure in report.failures[:5]:
        error = failure["error"]
        console.print(
            f"Block {failure['block']} {failure['state']} after {failure['attempts']} attempts: "
            f"{error.get('type')}: {error.get('message')}", markup=False,
        )
    if not report.ok:
        console.print(
            "Not all blocks are done. Run the same command again for those that are missing; "
            "`em-blocks retry CONFIG` also tries quarantined blocks again, `em-blocks replay CONFIG "
            f"BLOCK` shows one in this terminal. Logs: {report.logs}", markup=False,
        )


def _table(report) -> Table:
    blocks = report.blocks
    table = Table(title=f"{report.run} ({report.task}): {report.state}")
    for column in ("blocks", "done", "before", "now", "masked", "failed", "quarantined", "wall s",
                   "Mvoxel/s"):
        table.add_column(column, justify="right")
    for stage in report.seconds:
        table.add_column(f"{stage} s", justify="right")
    table.add_row(
        *(str(blocks[k]) for k in ("total", "done", "skipped", "computed", "masked", "failed",
                                   "quarantined")),
        f"{report.wall_s:.1f}", f"{report.mvox_s:.3g}",
        *(f"{seconds:.1f}" for seconds in report.seconds.values()),
    )
    return table
