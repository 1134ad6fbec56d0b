"""``em-blocks map-synapses CONFIG``."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import click

from em_blocks.cli.common import shows_errors
from em_blocks.cli.steps import steps_command
from em_blocks.config import is_url
from em_blocks.tasks.synapses.map_synapses import MapSynapses


def _with_lut(command: click.Command) -> click.Command:
    """Add ``--lut``, which changes the look-up table of a mapping that exists."""
    callback = command.callback

    @shows_errors
    @functools.wraps(callback)
    def with_lut(config: Path, overrides: tuple[str, ...], lut: str | None, dry_run: bool, **values):
        if lut is not None:
            overrides += (f"lut={json.dumps(lut if is_url(lut) else os.path.abspath(lut))}",)
            _change_table(MapSynapses.from_file(config, overrides), dry_run)
        return callback(config=config, overrides=overrides, dry_run=dry_run, **values)

    command.callback = with_lut
    command.params.insert(1, click.Option(
        ["--lut"], metavar="FOLDER",
        help="Segments by this look-up table instead of that of CONFIG. Where the mapping exists, only "
        "rows whose supervoxels changed segment are written; no label is read.",
    ))
    return command


def _change_table(task: MapSynapses, dry_run: bool) -> None:
    from em_blocks.runtime.runs.remap import remap

    found = remap(task.sites(), dependents=task.skeleton_steps(), dry_run=dry_run)
    if found is None:
        click.echo("The segments are not of another look-up table.", err=True)
    elif dry_run:
        click.echo(f"{found.supervoxels} supervoxels have another segment in {found.lut}.", err=True)
    else:
        click.echo(
            f"{found.supervoxels} supervoxels have another segment in {found.lut}: {found.pre} "
            f"presynaptic and {found.post} postsynaptic sites changed in {found.seconds:.1f} s.",
            err=True,
        )


main = _with_lut(steps_command(
    MapSynapses,
    "map-synapses",
    """Map the synapses of a run to supervoxels and segments, as CONFIG (JSON) says.

    Blocks that are done are skipped, so a stopped command is simply repeated; synapses that were
    detected anew since are mapped again.
    """,
))
