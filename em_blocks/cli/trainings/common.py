"""Parts of the verbs on recorded trainings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from em_blocks.db.trainings.run_database import run_database_if

if TYPE_CHECKING:  # needs the extra [predict], which --help must not
    from em_blocks.training.records.recorded import Recorded

db_option = click.option(
    "--db", metavar="ADDRESS",
    help="Run database: a MongoDB host or URI, file:PATH of a private file with one, or a folder "
    "[default: $EM_BLOCKS_DB].",
)
run_argument = click.argument("run", metavar="RUN")
runs_argument = click.argument("runs", metavar="RUN...", nargs=-1, required=True)


@contextmanager
def found_runs(runs: tuple[str, ...], db: str | None) -> Iterator[list[Recorded]]:
    """Find trainings by their numbers or folders; their curves can be read inside."""
    from em_blocks.training.records.recorded import find_recorded

    with run_database_if(db) as store:
        yield [find_recorded(store, run) for run in runs]


RUN = "RUN is the number of a training in the run database, or the folder of one."
