"""``em-blocks map-synapses CONFIG``."""

from __future__ import annotations

import json
import os

import click

from em_blocks.cli.steps import ExtraOption, steps_command
from em_blocks.config import is_url
from em_blocks.tasks.synapses.map_synapses import MapSynapses


def _override(lut: str) -> str:
    return f"lut={json.dumps(lut if is_url(lut) else os.path.abspath(lut))}"


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


_LUT = ExtraOption(
    click.Option(
        ["--lut"], metavar="FOLDER",
        help="Segments by this look-up table instead of that of CONFIG. Where the mapping exists, only "
        "rows whose supervoxels changed segment are written; no label is read.",
    ),
    override=_override, before=_change_table,
)

main = steps_command(
    MapSynapses,
    "map-synapses",
    """Map the synapses of a run to supervoxels and segments, as CONFIG (JSON) says.

    Blocks that are done are skipped, so a stopped command is simply repeated; synapses that were
    detected again since then are mapped again.
    """,
    extra_options=[_LUT],
)
