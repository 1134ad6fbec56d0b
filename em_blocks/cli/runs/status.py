"""``em-blocks status CONFIG``."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live

from em_blocks.cli.common import (
    config_argument,
    json_option,
    opened_store,
    set_option,
    shows_errors,
    step_option,
    watched_steps,
)
from em_blocks.cli.runs.watching import TheEnd, screen
from em_blocks.db.runs import RunStore
from em_blocks.json_text import json_text
from em_blocks.runtime.monitoring.overview import NOT_STARTED, StepView
from em_blocks.runtime.monitoring.status import run_status
from em_blocks.runtime.monitoring.watch import PERIOD_S, Watcher

INTERRUPTED = 130


@click.command(name="status")
@config_argument
@set_option
@step_option
@json_option
@click.option("--watch", is_flag=True, help="Repeat every 2 s until the run ends.")
@shows_errors
def main(
    config: Path, overrides: tuple[str, ...], step: str | None, as_json: bool, watch: bool
) -> None:
    """Show how far the run of CONFIG is, from the database.

    With --watch also its workers and failures; it ends with the run, with exit code 0 if all blocks
    are done and 1 if not, or on Ctrl-C with 130. A run that pauses between two steps has 15 s.
    """
    steps = watched_steps(config, overrides, step)
    with opened_store(next(iter(steps.values()))) as first:
        client = first.client
        stores = {step: RunStore(client, t.db_name, t.run) for step, t in steps.items()}
        found = _statuses(list(stores.values()))
        if watch:
            sys.exit(_watch(stores, as_json))
        click.echo(_json(found) if as_json else "\n".join(map(_line, found)))


def _watch(stores: dict[StepView, RunStore], as_json: bool) -> int:
    """Show the runs again and again until they end; return the exit code."""
    end, console = TheEnd(), Console()
    try:
        if as_json:
            for snapshot in _looks(stores, end):
                click.echo(_json(_statuses_in(snapshot)))
        else:
            with Live(console=console, auto_refresh=False) as live:
                for snapshot in _looks(stores, end):
                    live.update(screen(snapshot, console.height), refresh=True)
    except KeyboardInterrupt:
        return INTERRUPTED
    return end.exit_code


def _looks(stores: dict[StepView, RunStore], end: TheEnd) -> Iterator[dict]:
    """Yield snapshots until the end."""
    watcher = Watcher(lambda: stores)
    while True:
        snapshot = watcher.refresh()
        yield snapshot
        if end.reached(snapshot):
            return
        time.sleep(PERIOD_S)


def _statuses(stores: list[RunStore]) -> list[dict]:
    """Return the status of all runs that were started; a single one must have been."""
    return [run_status(store) for store in stores if len(stores) == 1 or store.load() is not None]


def _statuses_in(snapshot: dict) -> list[dict]:
    """Return the statuses of a snapshot, as `_statuses` does."""
    keys = ("run", "state", "blocks", "rate_mvox_s", "eta_s", "reason")
    started = (step for step in snapshot["steps"] if step["state"] != NOT_STARTED)
    return [{key: step[key] for key in keys} for step in started]


def _json(found: list[dict]) -> str:
    return json_text(found[0] if len(found) == 1 else found)


def _line(status: dict) -> str:
    blocks = ", ".join(f"{n} {name}" for name, n in status["blocks"].items())
    eta = "" if status["eta_s"] is None else f", {status['eta_s']:.0f} s left"
    why = f"\n    {status['reason']}" if status["reason"] else ""
    rate = f"{status['rate_mvox_s']:.3g} Mvoxel/s"
    return f"{status['run']} is {status['state']}: {blocks}; {rate}{eta}{why}"
