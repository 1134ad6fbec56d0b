"""``em-blocks generate OUTPUT``: an EM-like volume with its truth, made from a seed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from em_blocks.cli.common import shows_errors
from em_blocks.cli.params import ThreePositive
from em_blocks.errors import RefusedError, VolumeError
from em_blocks.geometry import Frame, Triple
from em_blocks.runtime.runs.preflight import check_writable

if TYPE_CHECKING:
    from em_blocks.kernels.synthetic.volume import Phantom

CHUNK_SHAPE = (16, 128, 128)


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
    from em_blocks.kernels.synthetic.volume import phantom

    write = _writer(output)
    _check_free(output)
    made = phantom(
        shape, voxel_size=voxel_size, seed=seed, neurite_nm=neurite_nm,
        synapses_per_um3=synapses_per_um3,
    )
    _check_free(output)  # a large volume takes minutes, in which somebody else may have made it
    write(output, made, Frame(voxel_size))
    tbars = len(np.unique(made.synapses.pre, axis=0))
    click.echo(
        f"{output}: {len(np.unique(made.neurons))} neurons, {tbars} T-bars, {len(made.synapses)} pairs "
        f"of synaptic partners in {np.prod(made.raw.shape * np.array(voxel_size)) / 1e9:.3g} um^3"
    )


def write_cremi(path: Path, made: Phantom, frame: Frame) -> None:
    """Write raw, neurons and synapses of a phantom as a CREMI file; in one piece, or not at all."""
    from em_blocks.volumes.synapse_files import write_synapses
    from em_blocks.volumes.synapse_files.cremi import CremiVolume

    volumes = {
        "raw": CremiVolume(made.raw, frame), "neuron_ids": CremiVolume(made.neurons, frame)
    }
    write_synapses(path, _placed(made, frame), volumes=volumes)


def write_zarr(path: Path, made: Phantom, frame: Frame) -> None:
    """Write raw, neurons, mitochondria and synapses of a phantom into a folder; all or nothing."""
    from em_blocks.volumes import Volume
    from em_blocks.volumes.synapse_files import write_synapses

    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    chunk_shape: Triple = tuple(map(min, zip(CHUNK_SHAPE, made.raw.shape, strict=True)))
    for name in ("raw", "neurons", "mitochondria"):
        values = getattr(made, name)
        volume = Volume.create(
            str(partial / name), shape=values.shape, dtype=values.dtype, frame=frame,
            chunk_shape=chunk_shape,
        )
        volume.write(volume.box, values)
    write_synapses(partial / "synapses.parquet", _placed(made, frame))
    partial.rename(path)


WRITERS: dict[str, Callable[[Path, Phantom, Frame], None]] = {
    ".hdf": write_cremi, ".h5": write_cremi, ".hdf5": write_cremi, ".zarr": write_zarr,
}


def _placed(made: Phantom, frame: Frame):
    """Synapses of a phantom in the world."""
    return made.synapses.replace(
        pre=made.synapses.pre + frame.offset, post=made.synapses.post + frame.offset
    )


def _writer(output: Path) -> Callable[[Path, Phantom, Frame], None]:
    """Who writes an output, by the end of its name."""
    if output.suffix.lower() not in WRITERS:
        raise VolumeError(
            f"{output} has no known format: its name should end in one of {', '.join(WRITERS)}."
        )
    return WRITERS[output.suffix.lower()]


def _check_free(output: Path) -> None:
    """Raise an error if something would be overwritten, or the folder cannot be written."""
    if output.exists():
        raise RefusedError(
            f"{output} exists and is not overwritten: another volume in its place would make all "
            "results from it wrong. Choose another name, or remove it first."
        )
    check_writable(output.parent)
