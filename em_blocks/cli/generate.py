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
@shows_errors
def main(output: Path, shape, voxel_size, seed, neurite_nm, synapses_per_um3) -> None:
    """Make a volume of neurites with membranes, mitochondria and synapses, and their truth.

    OUTPUT ends in .hdf, .h5 or .hdf5: a file as in the CREMI challenge, of raw, neuron ids and
    synaptic partners. Or in .zarr: a folder of the volumes raw, neurons and mitochondria, and
    the partners in synapses.parquet. All of it is made in memory, which takes about 65 bytes per
    voxel.
    """
    from em_blocks.api import generate

    made = generate(
        output, shape=shape, voxel_size=voxel_size, seed=seed, neurite_nm=neurite_nm,
        synapses_per_um3=synapses_per_um3,
    )
    tbars = len(np.unique(made.synapses.pre, axis=0))
    click.echo(
        f"{output}: {len(np.unique(made.neurons))} neurons, {tbars} T-bars, {len(made.synapses)} pairs "
        f"of synaptic partners in {np.prod(made.raw.shape * np.array(voxel_size)) / 1e9:.3g} um^3"
    )
