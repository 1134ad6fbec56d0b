"""``em-blocks status CONFIG``."""

import json
import time
from pathlib import Path

import click
from rich.live import Live
from rich.table import Table

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
from em_blocks.runtime.status import run_status

WATCH_S = 2.0


@click.command(name="status")
@config_argument
@set_option
@step_option
@json_option
@click.option("--watch", is_flag=True, help="Repeat until the run ends.")
@shows_errors
def main(
    config: Path, overrides: tuple[str, ...], step: str | None, as_json: bool, watch: bool
) -> None:
    """Show how far the run of CONFIG is, from the database."""
    steps = load_steps(config, overrides, step)
    with opened_store(steps[0]) as first:
        stores = [first, *(RunStore(first.client, s.db_name, s.run) for s in steps[1:])]
        found = _statuses(stores)
        if not watch:
            click.echo(_json(found) if as_json else "\n".join(map(_line, found)))
            return
        with Live(_table(found)) as live:
            while any(status["state"] == "running" for status in found):
                time.sleep(WATCH_S)
                found = _statuses(stores)
                if as_json:
                    click.echo(_json(found))
                live.update(_table(found))


def _statuses(stores: list[RunStore]) -> list[dict]:
    """Of all runs that were started; a single one must have been."""
    return [run_status(store) for store in stores if len(stores) == 1 or store.load() is not None]


def _json(found: list[dict]) -> str:
    return json.dumps(found[0] if len(found) == 1 else found)


def _table(found: list[dict]) -> Table:
    table = Table()
    names = found[0]["blocks"] if found else ()
    table.add_column("run")
    for name in ("state", *names, "Mvoxel/s", "s left"):
        table.add_column(name, justify="right")
    for status in found:
        eta = "" if status["eta_s"] is None else f"{status['eta_s']:.0f}"
        table.add_row(
            status["run"], status["state"], *map(str, status["blocks"].values()),
            f"{status['rate_mvox_s']:.3g}", eta,
        )
    return table


def _line(status: dict) -> str:
    blocks = ", ".join(f"{n} {name}" for name, n in status["blocks"].items())
    eta = "" if status["eta_s"] is None else f", {status['eta_s']:.0f} s left"
    return f"{status['run']} is {status['state']}: {blocks}; {status['rate_mvox_s']:.3g} Mvoxel/s{eta}"
