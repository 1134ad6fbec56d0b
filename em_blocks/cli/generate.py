"""``em-blocks generate OUTPUT``: an EM-like volume with its truth, made from a seed."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from em_blocks.cli.common import shows_errors
from em_blocks.cli.params import ThreePositive


@click.command(name="generate")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--shape", type=ThreePositive(int), default="64,512,512", show_default=True,
              help="Voxels (z, y, x).")
@click.option("--voxel-size", type=ThreePositive(float), default="40,4,4", show_default=True,
              help="nm (z, y, x).")
@click.option("--seed", type=click.IntRange(min=0), required=True,
              help="The same seed makes the same volume.")
@click.option("--neurite-nm", type=click.FloatRange(min=0, min_open=True), default=300.0,
              show_default=True, help="Typical thickness of a neurite.")
@click.option("--synapses-per-um3", type=click.FloatRange(min=0), default=8.0, show_default=True,
              help="T-bars per cubic micrometre, each with one to five partners.")
@click.option("--mitochondria-per-um3", type=click.FloatRange(min=0, min_open=True),
              help="Instead of tissue, mitochondria and maps of them; 4 per cubic micrometre are usual.")
@click.pass_context
@shows_errors
def main(context: click.Context, output: Path, shape, voxel_size, seed, neurite_nm,
         synapses_per_um3, mitochondria_per_um3) -> None:
    """Make a volume of neurites with membranes, mitochondria and synapses, and their truth.

    OUTPUT ends in .hdf, .h5 or .hdf5: a file as in the CREMI challenge, of raw, neuron ids and
    synaptic partners. Or in .zarr: a folder of the volumes raw, neurons and mitochondria, and
    the partners in synapses.parquet. All of it is made in memory, which takes about 65 bytes per
    voxel.

    With --mitochondria-per-um3, OUTPUT.zarr gets the volumes mitochondria (ids; many touch, branch or
    have necks), and foreground, contour and signed_distance as networks predict them: blurred, too
    wide, noisy, with gaps in contours. They are made block by block, so that they may be of any size.
    """
    from em_blocks.api import generate

    if mitochondria_per_um3 is not None:
        _mitochondria(context, output, mitochondria_per_um3)
        return
    made = generate(
        output, shape=shape, voxel_size=voxel_size, seed=seed, neurite_nm=neurite_nm,
        synapses_per_um3=synapses_per_um3,
    )
    tbars = len(np.unique(made.synapses.pre, axis=0))
    click.echo(
        f"{output}: {len(np.unique(made.neurons))} neurons, {tbars} T-bars, {len(made.synapses)} pairs "
        f"of synaptic partners in {np.prod(made.raw.shape * np.array(voxel_size)) / 1e9:.3g} um^3"
    )


def _mitochondria(context: click.Context, output: Path, per_um3: float) -> None:
    """Make mitochondria and their maps."""
    from em_blocks.api import generate_mitochondria

    for name in ("neurite_nm", "synapses_per_um3"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} is about tissue, which --mitochondria-per-um3 replaces.")
    options = {name: context.params[name] for name in ("shape", "voxel_size", "seed")}
    grown = generate_mitochondria(output, per_um3=per_um3, **options)
    click.echo(
        f"{output}: {len(grown)} mitochondria, {len(grown.touching)} pairs of them touch; maps: "
        "foreground, contour, signed_distance"
    )
