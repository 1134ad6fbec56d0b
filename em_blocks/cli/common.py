"""Parts of all commands: errors as one paragraph, configs, the report of a run."""

from __future__ import annotations

import functools
import logging
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from em_blocks.config import read_json
from em_blocks.db.connect import connect, database_home, database_uri, redacted
from em_blocks.db.runs import RunStore
from em_blocks.errors import ConfigError, DatabaseError, EmBlocksError
from em_blocks.extras import needed_extras
from em_blocks.json_text import json_text
from em_blocks.runtime.monitoring.overview import StepView
from em_blocks.tasks import task_class
from em_blocks.tasks.base import BlockwiseTask, RunConfig

STAGES = {"read": 0, "compute": 1, "write": 2}

config_argument = click.argument("config", type=click.Path(path_type=Path))
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE",
    help="Replace a value of the config; may be repeated.",
)
step_option = click.option(
    "--step", metavar="NAME", help="Only this step of a config with several, e.g. fragments."
)
print_only_option = click.option(
    "--print-only", is_flag=True,
    help="Print a job script that lets workers join this run; make the folder of their logs, and "
    "nothing else.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def shows_errors(command: Callable) -> Callable:
    """Turn an `EmBlocksError` into its paragraph and its exit code."""

    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s")
        try:
            with needed_extras():
                return command(*args, **kwargs)
        except EmBlocksError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)

    return wrapped


def load_config(config: Path, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Return the model of a config file of any kind."""
    from em_blocks.runtime.runs.block_shape import with_block_shape

    return with_block_shape(task_class(read_json(config).get("kind")).from_file(config, overrides))


def load_steps(
    config: Path, overrides: tuple[str, ...] = (), step: str | None = None
) -> list[BlockwiseTask]:
    """Return the tasks of a config file: all its steps, or the one named `step`.

    Raises
    ------
    ConfigError
        If there is no step of that name.
    """
    steps = named_steps(load_config(config, overrides))
    if step is None:
        return list(steps.values())
    if step not in steps:
        raise ConfigError(f"{config} has no step {step!r}; its steps are {', '.join(steps)}.")
    return [steps[step]]


def named_steps(loaded: RunConfig) -> dict[str, BlockwiseTask]:
    """Return the tasks of a config by the names that `--step` takes."""
    return {
        task.run.removeprefix(loaded.run).lstrip("._") or loaded.run: task for task in loaded.steps()
    }


def watched_steps(
    config: Path, overrides: tuple[str, ...] = (), step: str | None = None
) -> dict[StepView, BlockwiseTask]:
    """Return the tasks of a config file (or of its `step`), with the commands that replay a block."""
    names = named_steps(load_config(config, overrides))
    chosen = load_steps(config, overrides, step)
    return {
        StepView(name, _replay_command(config, overrides, name if len(names) > 1 else None)): task
        for name, task in names.items() if task in chosen
    }


def _replay_command(config: Path, overrides: tuple[str, ...], step: str | None) -> str:
    command = ["em-blocks", "replay", str(config.absolute()), "{block}"]
    for override in overrides:
        key, _, value = override.partition("=")
        # Shown to others, and copied: a password has no place in it.
        command += ["--set", f"{key}={redacted(value)}" if "@" in value else override]
    if step is not None:
        command += ["--step", step]
    return " ".join("{block}" if part == "{block}" else _quoted(part) for part in command)


def _quoted(part: str) -> str:
    return shlex.quote(part).replace("{", "{{").replace("}", "}}")


def load_task(config: Path, overrides: tuple[str, ...], step: str | None) -> BlockwiseTask:
    """Return the one task of a config file, or its step named `step`."""
    steps = load_steps(config, overrides, step)
    if len(steps) > 1:
        names = ", ".join(named_steps(load_config(config, overrides)))
        raise ConfigError(f"{config} has several steps; name one by --step: {names}.")
    return steps[0]


@contextmanager
def opened_store(task: BlockwiseTask) -> Iterator[RunStore]:
    """Yield the documents of a task's run; an embedded database is started if it does not run.

    Raises
    ------
    DatabaseError
        If there is no database yet, or it cannot be reached.
    """
    if task.db_host is None and not database_home(task.home).exists():
        raise DatabaseError(
            f"There is no database in {database_home(task.home)}: this run was never started from "
            "this config, or with another 'output' or 'run_dir'."
        )
    with database_uri(task.db_host, task.home) as uri, connect(uri) as client:
        yield RunStore(client, task.db_name, task.run)


def print_report(report, as_json: bool) -> None:
    """Show how a run ended: JSON on stdout, or a table and what to do about failures."""
    if as_json:
        click.echo(json_text(asdict(report), indent=2, default=str))
        return
    console = Console()
    console.print(_table(report))
    if report.reason and not report.ok:
        console.print(f"{report.state.capitalize()}: {report.reason}", markup=False)
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
    """Return one row per figure: a wide table would be cut on a narrow terminal."""
    blocks = report.blocks
    table = Table(title=f"{report.run} ({report.task}): {report.state}", show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    for label, key in (
        ("blocks", "total"), ("done", "done"), ("done before", "skipped"), ("done now", "computed"),
        ("masked", "masked"), ("failed or missing", "failed"), ("quarantined", "quarantined"),
    ):
        table.add_row(label, str(blocks[key]))
    table.add_row("wall time", f"{report.wall_s:.1f} s")
    table.add_row("rate", f"{report.mvox_s:.3g} Mvoxel/s")
    for stage, seconds in sorted(report.seconds.items(), key=lambda item: STAGES.get(item[0], 9)):
        table.add_row(f"{stage}, all workers", f"{seconds:.1f} s")
    for name, count in report.counts.items():
        table.add_row(name, str(count))
    for name, path in report.outputs.items():
        table.add_row(name, path)
    return table
