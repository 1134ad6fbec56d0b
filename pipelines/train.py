"""Train the network of a setup."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from pathlib import Path

import click

from em_blocks.errors import EmBlocksError


@click.command()
@click.argument("setup", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--resume", is_flag=True, help="Continue the training in the output folder.")
@click.option("--iterations", type=click.IntRange(min=1), help="Instead of the config's number.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the trained setup [default: that of SETUP].",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE")
@click.option(
    "--db", metavar="ADDRESS",
    help="Run database that records the training: a MongoDB host or URI, file:PATH of a private file "
    "with one, or a folder [default: $EM_BLOCKS_DB, else only the training's folder].",
)
@click.option(
    "--continue", "continued", metavar="RUN",
    help="Continue a recorded training (its number in the run database, or its folder) with the config "
    "that it was trained with; instead of SETUP and --resume.",
)
@click.option(
    "--repeat", "repeated", metavar="RUN",
    help="Train again with the config of a recorded training, into --output; instead of SETUP.",
)
@click.option(
    "--start-from", metavar="RUN[:CHECKPOINT]",
    help="Begin with the weights of a training: its number in the run database or its folder, and best "
    "(the default), latest or an iteration. What of it fits is loaded; the rest is random.",
)
@click.option(
    "--full-state", is_flag=True,
    help="With --start-from: take over the optimiser too [default checkpoint: latest].",
)
@click.option(
    "--check-commit", is_flag=True,
    help="With --continue or --repeat: refuse other code than the git commit that was recorded.",
)
def main(
    setup: Path | None,
    resume: bool,
    iterations: int | None,
    output: Path | None,
    overrides: tuple[str, ...],
    db: str | None,
    continued: str | None,
    repeated: str | None,
    start_from: str | None,
    full_state: bool,
    check_commit: bool,
) -> None:
    """Train the network of SETUP: a folder, or the config.json in it.

    Writes checkpoints/ (best.safetensors, the newest weights and full states,
    record.json) and training/ (TensorBoard). Ctrl-C and SIGTERM save the state;
    a stopped or killed training goes on with --resume as if it had never
    stopped, with more iterations if you want. See docs/training.md.
    """
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    logging.getLogger("numexpr").setLevel("WARNING")  # its number of threads, on import
    # Threads that spin while they wait for each other take the core from the thread that
    # makes the next batch, and from other programs. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if iterations is not None:
        overrides = (*overrides, f"training.iterations={iterations}")
    try:
        # Imported late: --help should not load torch and gunpowder.
        from em_blocks.cli.trainings.chosen import Asked, chosen_training
        from em_blocks.db.connect import scrub
        from em_blocks.db.trainings.run_database import run_database_if
        from em_blocks.training.run import train
        from em_blocks.volumes.stores.apart import check_outside, paths_in

        asked = Asked(
            setup, continued, repeated, output, resume, check_commit, overrides, start_from,
            full_state, db,
        )
        typed = shlex.join([*_program(), *sys.argv[1:]])
        with run_database_if(db) as store:  # once it is open, `scrub` knows its password
            if store is not None:
                store.prepare()
            chosen = chosen_training(asked, store)
            read = dict(paths_in(chosen.setup.config.to_train().model_dump(mode="json")))
            check_outside(read, chosen.output)
            go_on = shlex.join([*_program(), *chosen.go_on(sys.argv[1:], db)])
            ended = train(
                chosen.setup, chosen.output, scrub(typed), resume=chosen.resume, go_on=scrub(go_on),
                store=store, lineage=chosen.lineage,
            )
        click.echo(ended)
    except EmBlocksError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)


def _program() -> list[str]:
    """Return how this program was called, without its arguments."""
    name = Path(sys.argv[0]).name
    return ["python", sys.argv[0]] if name.endswith(".py") else [name]


if __name__ == "__main__":
    main()
