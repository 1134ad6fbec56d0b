"""``em-blocks forget CONFIG``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from em_blocks.cli.common import (
    config_argument,
    json_option,
    load_steps,
    opened_store,
    set_option,
    shows_errors,
    step_option,
)
from em_blocks.db.runs import RunStore
from em_blocks.errors import ConfigError, LeaseHeldError
from em_blocks.runtime.runs.forget import Removable, forget_run, removable
from em_blocks.runtime.runs.leases import is_alive, take_lease
from em_blocks.runtime.runs.ownership import check_removable
from em_blocks.tasks.base import BlockwiseTask

Known = list[tuple[BlockwiseTask, RunStore, Removable]]


@click.command(name="forget")
@config_argument
@set_option
@step_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@shows_errors
def main(
    config: Path, overrides: tuple[str, ...], step: str | None, yes: bool, as_json: bool
) -> None:
    """Remove the runs of CONFIG permanently: their records, their rows and their outputs.

    What would go is listed first, and asked for. Nothing is removed that these runs did not make, and
    nothing while one of them is at work. A command that was killed is simply repeated. Logs, summaries
    and the database itself stay.
    """
    tasks = load_steps(config, overrides, step)
    with opened_store(tasks[-1]) as opened:
        known = []
        for task in tasks:
            store = RunStore(opened.client, task.db_name, task.run)
            if (found := removable(store, task)) is not None:
                known.append((task, store, found))
        _check(known)
        if not as_json:
            click.echo(_listing(known, tasks))
        if known and not yes:
            _ask(known)
        # The last step first: it reads what those before it wrote.
        for task, store, _ in reversed(known):
            take_lease(store, task)
            forget_run(store, task)
    left = sorted({str(task.home) for task in tasks})
    if as_json:
        click.echo(json.dumps({"removed": [e[2].document() for e in known], "left_in": left}, indent=2))
    elif known:
        click.echo(f"Removed. Logs, summaries and the database are left in {', '.join(left)}.")


def _check(known: Known) -> None:
    """Raise before anything is removed if something must not be."""
    for task, store, _ in known:
        run = store.load()
        if is_alive(run["lease"], store.now()):
            raise LeaseHeldError(
                f"Run {task.run!r} is being worked on by {run['lease']['owner']} (host:pid:start), so "
                "nothing was removed: its workers would write into what is deleted. Stop it first."
            )
        check_removable(task, run)


def _listing(known: Known, tasks: list[BlockwiseTask]) -> str:
    if not known:
        return f"The database has no run {' or '.join(task.run for task in tasks)}: nothing to remove."
    lines = []
    for _, _, run in known:
        rows = f", {run.rows} synapses" if run.rows else ""
        lines.append(f"{run.run} ({run.task}, {run.state}): {run.blocks} done blocks{rows}")
        lines += [f"    {path}  {_size(nbytes)}" for path, nbytes in run.outputs.items()]
    return "\n".join(lines)


def _size(nbytes: int | None) -> str:
    return "in an object store" if nbytes is None else f"{nbytes / 1e6:.3g} MB"


def _ask(known: Known) -> None:
    """Raise unless a person says yes."""
    if not sys.stdin.isatty():
        raise ConfigError(
            f"Removing {len(known)} runs needs a confirmation, which cannot be asked for: the input is "
            "no terminal. Nothing was removed; add --yes to remove all that is listed."
        )
    click.confirm("Remove all of this permanently?", abort=True, err=True)
