"""``em-blocks predict CONFIG``."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import click

from em_blocks.cli.common import shows_errors
from em_blocks.cli.steps import CONFIG_HELP, steps_command
from em_blocks.tasks.prediction.options import CHECKPOINT_WORDS
from em_blocks.tasks.prediction.predict import Predict

_OPTIONS = [
    click.Option(
        ["--run-id"], metavar="RUN",
        help="Predict with a training: its number in the run database, or its folder, perhaps with the "
        "weights (3:2500). Replaces `setup` of CONFIG.",
    ),
    click.Option(
        ["--checkpoint"], metavar="best|latest|ITERATION", help="Weights. Replaces that of CONFIG."
    ),
    click.Option(["--db"], metavar="ADDRESS", help="Run database of --run-id [default: $EM_BLOCKS_DB]."),
]


def _command() -> click.Command:
    command = steps_command(Predict, "predict", f"{inspect.getdoc(Predict)}\n\n{CONFIG_HELP}")
    run = command.callback

    @shows_errors
    def with_training(
        *, run_id: str | None, checkpoint: str | None, db: str | None, overrides: tuple[str, ...],
        **options,
    ) -> None:
        run(overrides=(*overrides, *training_overrides(run_id, checkpoint, db)), **options)

    command.callback = with_training
    command.params[1:1] = _OPTIONS
    return command


def training_overrides(
    run_id: str | None, checkpoint: str | None, db: str | None
) -> tuple[str, ...]:
    """Return what the options stand for, as values of ``--set``: what they name is found here.

    Workers and job scripts then need no run database.
    """
    if run_id is None:
        return () if checkpoint is None else (f"checkpoint={_absolute(checkpoint)}",)
    from em_blocks.training.records.resolve import resolve_training

    found = resolve_training(db, run_id, checkpoint)
    return (
        f"setup={found.folder}", f"checkpoint={found.checkpoint}",
        f"training={json.dumps(found.lineage())}", *([] if db is None else [f"training_db={db}"]),
    )


def _absolute(checkpoint: str) -> str:
    """A path counts from here on a command line; a word or an iteration stays."""
    is_named = checkpoint in CHECKPOINT_WORDS or checkpoint.isdecimal()
    return checkpoint if is_named else str(Path(checkpoint).absolute())


main = _command()
