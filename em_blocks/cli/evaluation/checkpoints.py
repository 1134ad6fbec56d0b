"""``em-blocks evaluate checkpoints``: the scores of many checkpoints, to choose one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from em_blocks.cli.common import json_option, print_report, shows_errors
from em_blocks.cli.evaluation.common import folder_of, print_written, with_progress
from em_blocks.cli.params import Steps
from em_blocks.cli.trainings.common import db_option
from em_blocks.db.trainings.run_database import run_database_if
from em_blocks.errors import ConfigError
from em_blocks.json_text import json_text

if TYPE_CHECKING:  # networks are imported when they are needed: --help needs none
    from em_blocks.evaluation.checkpoints import ScoredCheckpoints
    from em_blocks.tasks.prediction.predict_checkpoints import PredictCheckpoints

CONFIG = "config.json"
_ITERATIONS = Steps(int, "1000,2000 or first:last:step such as 1000:10000:1000", least=1)


@click.command()
@click.argument("setup", metavar="SETUP|RUN|CONFIG")
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Validation data: a data config, or JSON as of the key training.validation. Default: "
              "those of the setup.")
@click.option("--iterations", type=_ITERATIONS, metavar="LIST",
              help="Checkpoints: 1000,2000 or 1000:10000:1000. Default: all that are there.")
@click.option("--score", help="Score that chooses the best. Default: training.score of the setup.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Predictions, scores and a picture; needed with a SETUP.")
@click.option("--num-workers", type=click.IntRange(min=1), help="Worker processes. Default: 1.")
@db_option
@json_option
@shows_errors
def checkpoints(
    setup: str, output: Path | None, db: str | None, as_json: bool, **options
) -> None:
    """Score the checkpoints of SETUP, or of training RUN, on validation data, and name the best.

    Each checkpoint predicts the data block by block (blocks that are done are skipped, so a stopped
    command is simply repeated), and is scored as a validation in a training does. FOLDER/config.json
    is the job: `em-blocks status`, `plan` and `retry` take it, and so does this command. The best is
    noted in the record of the training, and in the run database if it is there.
    """
    from em_blocks.evaluation.checkpoints import score_checkpoints, write_results
    from em_blocks.runtime.scheduler.pipeline import run_config
    from em_blocks.training.records.notes import note_training

    task = _task(_folder_of(setup, db), output, options)
    reports = run_config(task)
    if not reports[-1].ok:
        print_report(reports[-1], as_json)
        sys.exit(reports[-1].exit_code)
    n = len(task.checkpoints)
    found = score_checkpoints(task, with_progress(task.checkpoints, n, "Scoring checkpoints"))
    written = write_results(folder_of(task), found)
    places = note_training(task.setup, "checkpoints", _note(task, found), db=db)
    if as_json:
        click.echo(json_text(found.document(), indent=2))
    else:
        _show(found, written, places)


def _folder_of(setup: str, db: str | None) -> Path:
    """Return the folder or config that was named, or the folder of a training by its number."""
    from em_blocks.training.records.recorded import find_recorded
    from em_blocks.training.records.resolve import check_setup

    if not setup.isdecimal():
        path = Path(setup)
        if not path.exists():
            raise ConfigError(
                f"There is no setup and no config {setup}. Name the folder of a setup, the number of a "
                f"training in the run database, or the {CONFIG} of an earlier evaluation of checkpoints."
            )
        return path
    with run_database_if(db) as store:
        training = find_recorded(store, setup)
    check_setup(training)
    return training.folder


def _note(task: PredictCheckpoints, found: ScoredCheckpoints) -> dict:
    """Return what the record of the training says of the evaluation."""
    document = found.document()
    score = found.choice.score
    return {
        **{key: document[key] for key in ("score", "lower_is_better", "best")},
        "data": list(dict.fromkeys(box.data.data_set for box in task.boxes)),
        "checkpoints": [
            {"iteration": entry["iteration"], "value": entry[score]} for entry in found.entries
        ],
    }


def _task(setup: Path, output: Path | None, options: dict) -> PredictCheckpoints:
    """Return the job of a config, or that of a setup, whose config is written to the output."""
    from em_blocks.models.data_config import file_value
    from em_blocks.tasks.prediction.predict_checkpoints import PredictCheckpoints

    if setup.is_file():
        if output is not None or any(value is not None for value in options.values()):
            raise click.UsageError("Options belong to a SETUP; a CONFIG says all of it by its keys.")
        return PredictCheckpoints.from_file(setup)
    if output is None:
        raise click.UsageError("Name --output FOLDER, which gets predictions and scores.")
    data = options["data"]
    values = {
        "kind": "predict_checkpoints", "run": "checkpoints", "setup": str(setup.absolute()),
        "output": str(output.absolute()), "run_dir": str(output.absolute()),
        "num_workers": options["num_workers"] or 1, "score": options["score"],
        "iterations": None if options["iterations"] is None else list(options["iterations"]),
        "validation": None if data is None else file_value(data),
    }
    folder = None if data is None else data.absolute().parent
    task = PredictCheckpoints.from_dict(values, folder=folder, source="The command line")
    for step in task.steps():  # what is wrong is said before anything is written
        step.check()
    output.mkdir(parents=True, exist_ok=True)
    config = task.model_dump(mode="json", exclude_defaults=True)  # with all paths absolute
    (output / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    return task


def _show(found: ScoredCheckpoints, written: list[Path], places: list[str]) -> None:
    from em_blocks.evaluation.checkpoints import drawn

    console, names = Console(), drawn(found)
    table = Table(title=f"Checkpoints by {found.choice.score}")
    table.add_column("iteration", justify="right")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for entry in found.entries:
        values = ("-" if entry[name] is None else f"{entry[name]:.4f}" for name in names)
        style = "bold" if entry is found.best else None
        table.add_row(str(entry["iteration"]), *values, style=style)
    console.print(table)
    if found.best is not None:
        console.print(
            f"Best: iteration {found.best['iteration']}, {found.choice.score} "
            f"{found.best[found.choice.score]:.4f}", markup=False,
        )
    print_written(console, written)
    for place in places:
        console.print(f"Noted: {place}", markup=False, highlight=False, soft_wrap=True)
