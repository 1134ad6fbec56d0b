"""``em-blocks runs dashboard``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from em_blocks.cli.common import shows_errors
from em_blocks.cli.runs.dashboard import check_installed, page_options, serve_page
from em_blocks.cli.trainings.common import db_option
from em_blocks.db.trainings.run_database import run_database_if
from em_blocks.errors import ConfigError
from em_blocks.training.records.recorded import (
    Recorded,
    find_recorded,
    of_database,
    recorded_below,
    recorded_in,
)

if TYPE_CHECKING:
    from em_blocks.db.trainings.store import TrainingStore
    from em_blocks.runtime.dashboard.trainings import Source


@click.command(name="dashboard")
@click.argument("folder", required=False,
                type=click.Path(exists=True, file_okay=False, path_type=Path))
@db_option
@page_options
@shows_errors
def main(folder: Path | None, db: str | None, host: str, port: int, opens: bool) -> None:
    """Show trainings in a web page until Ctrl-C is pressed.

    Curves of several over each other, pictures, and in what they differ; running ones as they
    go on. Those of the run database; without one, those in and below FOLDER or here.
    """
    check_installed("`em-blocks runs plot` draws curves, `runs diff` shows differences.")
    with trainings_of(folder, db) as source:
        from em_blocks.runtime.dashboard.server import open_trainings

        with open_trainings(source, host=host, port=port) as dashboard:
            serve_page(dashboard, host, opens)


@contextmanager
def trainings_of(folder: Path | None, db: str | None) -> Iterator[Source]:
    """Yield the trainings of the run database, or those below a folder."""
    with ExitStack() as stack:
        store = stack.enter_context(run_database_if(db)) if folder is None else None
        place = (folder or Path.cwd()).resolve()
        yield _of_folders(place) if store is None else _of_store(store)


def _of_store(store: TrainingStore) -> Source:
    from em_blocks.runtime.dashboard.trainings import Source

    def find(key: str) -> Recorded:
        if not key.isdecimal():
            raise ConfigError(f"{key!r} is no number of a training")
        return find_recorded(store, key)

    return Source(
        lambda: [of_database(store, one) for one in store.recorded_trainings()], find
    )


def _of_folders(place: Path) -> Source:
    from em_blocks.runtime.dashboard.trainings import Source

    def find(key: str) -> Recorded:
        if not Path(key).resolve().is_relative_to(place):
            raise ConfigError(f"{key!r} is no folder below {place}")
        return recorded_in(Path(key))

    return Source(lambda: list(recorded_below(place)), find)
