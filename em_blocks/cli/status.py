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
    load_task,
    opened_store,
    set_option,
    shows_errors,
)
from em_blocks.runtime.status import run_status

WATCH_S = 2.0


@click.command(name="status")
@config_argument
@set_option
@json_option
@click.option("--watch", is_flag=True, help="Repeat until the run ends.")
@shows_errors
def main(config: Path, overrides: tuple[str, ...], as_json: bool, watch: bool) -> None:
    """Show how far the run of CONFIG is, from the database."""
    with opened_store(load_task(config, overrides)) as store:
        status = run_status(store)
        if not watch:
            click.echo(json.dumps(status) if as_json else _lines(status))
            return
        with Live(_table(status)) as live:
            while status["state"] == "running":
                time.sleep(WATCH_S)
                status = run_status(store)
                if as_json:
                    click.echo(json.dumps(status))
                live.update(_table(status))


def _table(status: dict) -> Table:
    table = Table(title=f"{status['run']}: {status['state']}")
    for name in (*status["blocks"], "Mvoxel/s", "s left"):
        table.add_column(name, justify="right")
    eta = "" if status["eta_s"] is None else f"{status['eta_s']:.0f}"
    table.add_row(*map(str, status["blocks"].values()), f"{status['rate_mvox_s']:.3g}", eta)
    return table


def _lines(status: dict) -> str:
    blocks = ", ".join(f"{n} {name}" for name, n in status["blocks"].items())
    eta = "" if status["eta_s"] is None else f", {status['eta_s']:.0f} s left"
    return f"{status['run']} is {status['state']}: {blocks}; {status['rate_mvox_s']:.3g} Mvoxel/s{eta}"
