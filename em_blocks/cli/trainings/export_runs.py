"""``em-blocks runs export RUN...``."""

from __future__ import annotations

from pathlib import Path

import click

from em_blocks.cli.common import shows_errors
from em_blocks.cli.trainings.common import RUN, db_option, found_runs, runs_argument

_HELP = f"""Write trainings for other programs. {RUN}

csv: a row per point of their curves, in one file. tensorboard: a log per training, below a folder.
mlflow: runs of a tracking store (URI). sacred: runs of a MongoDB (address, as of --db), which
Omniboard and other readers of Sacred open.
"""


@click.command(name="export", help=_HELP)
@runs_argument
@db_option
@click.option("--to", "kind", required=True,
              type=click.Choice(["csv", "tensorboard", "mlflow", "sacred"]))
@click.option("--output", required=True, metavar="PLACE", help="File, folder, URI or address.")
@shows_errors
def main(runs: tuple[str, ...], db: str | None, kind: str, output: str) -> None:
    with found_runs(runs, db) as trainings:
        if kind == "csv":
            from em_blocks.export.trainings.curves_csv import write_csv

            write_csv(trainings, Path(output))
        elif kind == "tensorboard":
            from em_blocks.export.trainings.tensorboard import write_tensorboard

            write_tensorboard(trainings, Path(output))
        elif kind == "mlflow":
            from em_blocks.export.trainings.mlflow import write_mlflow

            write_mlflow(trainings, output)
        else:
            from em_blocks.export.trainings.sacred import write_sacred

            numbers = write_sacred(trainings, output)
            output = f"runs {', '.join(map(str, numbers))} of Sacred"
    click.echo(output)
