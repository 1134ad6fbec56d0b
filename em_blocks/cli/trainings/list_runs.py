"""``em-blocks runs list``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from em_blocks.cli.common import json_option, shows_errors
from em_blocks.cli.trainings.common import db_option
from em_blocks.db.trainings.run_database import run_database_if
from em_blocks.json_text import json_text
from em_blocks.training.records.recorded import of_database, recorded_below, summary


@click.command(name="list")
@click.argument("folder", required=False,
                type=click.Path(exists=True, file_okay=False, path_type=Path))
@db_option
@json_option
@shows_errors
def main(folder: Path | None, db: str | None, as_json: bool) -> None:
    """List the trainings of the run database; without one, those in and below FOLDER or here."""
    if folder is not None:
        found = [summary(training) for training in recorded_below(folder.absolute())]
    else:
        found = _everywhere(db)
    if as_json:
        click.echo(json_text(found, indent=2))
    else:
        _print(found)


def _everywhere(db: str | None) -> list[dict]:
    with run_database_if(db) as store:
        if store is None:
            return [summary(training) for training in recorded_below(Path.cwd())]
        return [summary(of_database(store, document)) for document in store.recorded_trainings()]


def _print(found: list[dict]) -> None:
    table = Table()
    for name in ("run", "setup", "state", "iteration", "best score", "started", "folder"):
        table.add_column(name, overflow="fold")
    for one in found:
        best = one["best"]
        table.add_row(
            "-" if one["id"] is None else str(one["id"]), one["setup"], one["state"],
            f"{one['iteration']}/{one['iterations']}",
            f"{best['score']} {best['value']:.4f} at {best['iteration']}" if best else "-",
            (one["started"] or "-")[:16].replace("T", " "), escape(one["folder"]),
        )
    Console().print(table)
