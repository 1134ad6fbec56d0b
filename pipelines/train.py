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
@click.argument("setup", type=click.Path(exists=True, path_type=Path))
@click.option("--resume", is_flag=True, help="Continue the training in the output folder.")
@click.option("--iterations", type=click.IntRange(min=1), help="Instead of the config's number.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the trained setup [default: that of SETUP].",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE")
def main(
    setup: Path,
    resume: bool,
    iterations: int | None,
    output: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Train the network of SETUP: a folder, or the config.json in it.

    Writes checkpoints/ (best.safetensors, the newest weights and full states,
    record.json) and training/ (TensorBoard). Ctrl-C and SIGTERM save the state;
    a stopped or killed training goes on with --resume as if it had never
    stopped, with more iterations if you want. See docs/training.md.
    """
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    # Threads that spin while they wait for each other take the core from the thread that
    # makes the next batch, and from other programs. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if iterations is not None:
        overrides = (*overrides, f"training.iterations={iterations}")
    try:
        # Imported late: --help should not load torch and gunpowder.
        from em_blocks.models.setup import CONFIG, Setup
        from em_blocks.training.run import train
        from em_blocks.volumes.stores.apart import check_outside, paths_in

        config = setup / CONFIG if setup.is_dir() else setup
        opened = Setup.from_folder(config.parent, overrides, name=config.name)
        read = dict(paths_in(opened.config.to_train().model_dump(mode="json")))
        check_outside(read, output or opened.folder)
        typed = shlex.join(["python", *sys.argv])
        go_on = shlex.join([*_program(), *sys.argv[1:], *([] if resume else ["--resume"])])
        ended = train(opened, output or opened.folder, typed, resume=resume, go_on=go_on)
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
