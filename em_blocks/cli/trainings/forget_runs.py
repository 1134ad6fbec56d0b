"""``em-blocks runs forget NUMBER...``."""

from __future__ import annotations

import sys

import click

from em_blocks.cli.common import shows_errors
from em_blocks.cli.trainings.common import db_option
from em_blocks.db.trainings.run_database import run_database_if
from em_blocks.db.trainings.store import RUNNING, TrainingStore
from em_blocks.errors import ConfigError, RefusedError


@click.command(name="forget")
@click.argument("numbers", metavar="NUMBER...", nargs=-1, required=True,
                type=click.IntRange(min=1))
@db_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@shows_errors
def main(numbers: tuple[int, ...], db: str | None, yes: bool) -> None:
    """Remove trainings from the run database: records, curves, and records of their predictions.

    What would go is listed first, and asked for. Files stay: weights, the record in the folder of the
    training, predictions. `em-blocks runs import FOLDER` adds a training again, under a new number: one
    that was removed is never given again.
    """
    with run_database_if(db) as store:
        if store is None:
            raise ConfigError(
                "Trainings are removed from the run database, but none is named. Give --db ADDRESS (a "
                "MongoDB server, or a folder) or set EM_BLOCKS_DB."
            )
        for line in [_line(store, number) for number in dict.fromkeys(numbers)]:
            click.echo(line)
        if not yes:
            _ask(len(set(numbers)))
        for number in numbers:
            store.forget(number)
    click.echo("Removed from the run database. Their files were not touched.")


def _line(store: TrainingStore, number: int) -> str:
    """Describe what would go; raises unless it may."""
    from em_blocks.training.records.recorded import find_recorded

    document = find_recorded(store, str(number)).document
    if document.get("state") == RUNNING:
        raise RefusedError(
            f"Training {number} is running (on {document.get('host')}), so nothing was removed: its "
            "scores and checkpoints would no longer be recorded. Stop it first."
        )
    predictions = len(store.predictions_of(document["uid"]))
    return (
        f"training {number}: {document.get('setup')}, {document.get('state')} at iteration "
        f"{document.get('iteration')}, {predictions} predictions; files in {document.get('folder')}"
    )


def _ask(count: int) -> None:
    """Raise unless a person says yes."""
    if not sys.stdin.isatty():
        raise ConfigError(
            f"Removing {count} trainings needs a confirmation, which cannot be asked for: the input is "
            "no terminal. Nothing was removed; add --yes to remove all that is listed."
        )
    click.confirm("Remove these records permanently?", abort=True, err=True)
