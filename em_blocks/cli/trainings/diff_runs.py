"""``em-blocks runs diff RUN RUN``."""

from __future__ import annotations

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from em_blocks.cli.common import json_option, shows_errors
from em_blocks.cli.trainings.common import RUN, db_option, found_runs, runs_argument
from em_blocks.json_text import json_text
from em_blocks.training.records.compare import differing


@click.command(name="diff", help=f"Show in what trainings differ: config, data, code, versions. {RUN}")
@runs_argument
@db_option
@json_option
@shows_errors
def main(runs: tuple[str, ...], db: str | None, as_json: bool) -> None:
    with found_runs(runs, db) as trainings:
        rows = differing([training.document for training in trainings])
        labels = [training.label for training in trainings]
    if as_json:
        click.echo(json_text({"runs": labels, "differences": rows}, indent=2))
        return
    if not rows:
        click.echo("They do not differ.")
        return
    table = Table()
    for name in ("key", *labels):
        table.add_column(name, overflow="fold")
    for key, values in rows.items():
        table.add_row(*(escape(str(value)) for value in (key, *values)))
    Console().print(table)
