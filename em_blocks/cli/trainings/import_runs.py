"""``em-blocks runs import FOLDER...``."""

from __future__ import annotations

from pathlib import Path

import click

from em_blocks.cli.common import shows_errors
from em_blocks.cli.trainings.common import db_option
from em_blocks.db.trainings.run_database import run_database_if
from em_blocks.errors import ConfigError


@click.command(name="import")
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True,
                type=click.Path(exists=True, file_okay=False, path_type=Path))
@db_option
@shows_errors
def main(folders: tuple[Path, ...], db: str | None) -> None:
    """Add the trainings in folders to the run database, with their curves.

    One that is there already keeps its number, and is brought up to date: after an outage of the
    database, or when its folder has moved.
    """
    from em_blocks.training.records.importing import import_training

    with run_database_if(db) as store:
        if store is None:
            raise ConfigError(
                "There is no run database to import into: give --db ADDRESS (a MongoDB server, or a "
                "folder) or set EM_BLOCKS_DB."
            )
        for folder in folders:
            click.echo(f"training {import_training(store, folder)}: {folder}")
