"""What the commands of ``em-blocks evaluate`` share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import track

from em_blocks.config import VolumeRef, path_of
from em_blocks.geometry import Block
from em_blocks.volumes.stores.ledger import require_complete

ID = click.IntRange(min=-(2**63), max=2**64 - 1)


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


def with_progress(blocks: Iterable[Block], n: int) -> Iterator[Block]:
    """Blocks with a bar on a terminal; stdout is for results."""
    console = Console(stderr=True)
    return iter(track(blocks, "Counting voxels", total=n, console=console, transient=True,
                      disable=not console.is_terminal))
