"""Parts of the commands of ``em-blocks evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import track

from em_blocks.cli.common import json_option, opened_store, print_report, set_option
from em_blocks.config import VolumeRef, is_url, path_of
from em_blocks.geometry import Block
from em_blocks.runtime.runs.preflight import check_writable
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.places import places_of
from em_blocks.volumes.stores.apart import check_outside
from em_blocks.volumes.stores.ledger import require_complete

ID = click.IntRange(min=-(2**63), max=2**64 - 1)

Scores, Item = TypeVar("Scores"), TypeVar("Item")


def output_option(files: str) -> Callable:
    """Return the option of a folder for `files`."""
    return click.option(
        "--output", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
        help=f"Write {files} there.",
    )


def config_options(command: Callable) -> Callable:
    """Add the argument and the options of the form with a CONFIG, and --json."""
    for option in (
        click.pass_context,
        json_option,
        click.option("--adopt", is_flag=True, help="With CONFIG: keep blocks although settings differ."),
        click.option("--overwrite", is_flag=True, help="With CONFIG: do all blocks again."),
        set_option,
        click.argument("config", required=False, type=click.Path(path_type=Path)),
    ):
        command = option(command)
    return command


def check_form(
    context: click.Context, config: Path | None, options: dict, needed: tuple[str, ...]
) -> None:
    """Raise a usage error unless the options belong to one of the two forms, and are complete.

    A command takes either a CONFIG with --set, --overwrite and --adopt, or all other `options`,
    of which those in `needed` must be given.
    """
    if config is None and not all(options[name] for name in needed):
        flags = {p.name: p.opts[0] for p in context.command.params}
        volumes = [f"{flags[name]} VOLUME" for name in needed]
        named = " and ".join([", ".join(volumes[:-1]), volumes[-1]])
        raise click.UsageError(f"Name {named}, or a CONFIG.")
    of_other_form = ("overrides", "overwrite", "adopt") if config is None else options
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT
        if given and parameter.name in of_other_form:
            raise click.UsageError(
                f"{parameter.opts[0]} belongs to a CONFIG." if config is None else
                f"{parameter.opts[0]} cannot be given together with a CONFIG; set its key instead."
            )


def require_inputs(volumes: Mapping[str, VolumeRef | None]) -> None:
    """Raise `IncompleteInputError` for a volume of an evaluation in this process that lacks blocks."""
    for name, volume in volumes.items():
        if volume is not None:
            require_complete(path_of(volume), name=name)


def blocks_here(task: BlockwiseTask, output: Path | None) -> Iterator[Block]:
    """Check a task and where its results go; return its blocks, for this process, with a bar."""
    if output is not None:
        check_outside(places_of(task), output)
        check_writable(output)
    grid = task.grid()
    require_inputs(task.sources())
    task.check()
    return with_progress(grid.blocks(), grid.n_blocks)


def scored_on_workers(
    task: BlockwiseTask, as_json: bool, claim: dict[str, bool],
    score: Callable[[list[Block]], Scores], documents: Callable[[Scores], dict[str, dict]],
) -> Scores:
    """Do all blocks that are not done on workers; return their scores, stored in the database."""
    from em_blocks.db.evaluations import save_evaluations
    from em_blocks.db.runs import DONE
    from em_blocks.runtime.scheduler.run import run_blockwise

    report = run_blockwise(task, **claim)
    if not report.ok:  # scores of a part would be mistaken for those of the whole
        print_report(report, as_json)
        sys.exit(report.exit_code)
    with opened_store(task) as store:
        grid = task.grid()
        found = score([grid.block(index) for index in store.indices(DONE)])
        save_evaluations(store.database, task.run, documents(found))
    return found


def folder_of(task: BlockwiseTask) -> Path:
    """Return the folder for the results of a task: that of its run if its output is at a URL."""
    return task.home if is_url(task.output) else Path(task.output)


def with_progress(
    items: Iterable[Item], n: int, label: str = "Counting voxels"
) -> Iterator[Item]:
    """Return items with a bar on a terminal; stdout is for results."""
    console = Console(stderr=True)
    return iter(track(items, label, total=n, console=console, transient=True,
                      disable=not console.is_terminal))


def print_written(console: Console, paths: Iterable[Path]) -> None:
    """Print the paths of files, in whole lines."""
    for path in paths:
        console.print(f"Written: {path}", markup=False, highlight=False, soft_wrap=True)
