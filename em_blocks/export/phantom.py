"""Phantoms as volumes and synapses, for any reader of these formats."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from em_blocks.errors import VolumeError
from em_blocks.geometry import Frame, Triple
from em_blocks.volumes import Volume
from em_blocks.volumes.synapse_files import write_synapses
from em_blocks.volumes.synapse_files.cremi import CremiVolume

if TYPE_CHECKING:
    from em_blocks.kernels.synthetic.volume import Phantom

CHUNK_SHAPE = (16, 128, 128)


def write_cremi(path: Path, made: Phantom, frame: Frame) -> None:
    """Write raw, neurons and synapses of a phantom as a CREMI file; in one piece, or not at all."""
    volumes = {
        "raw": CremiVolume(made.raw, frame), "neuron_ids": CremiVolume(made.neurons, frame)
    }
    write_synapses(path, _placed(made, frame), volumes=volumes)


def write_zarr(path: Path, made: Phantom, frame: Frame) -> None:
    """Write raw, neurons, mitochondria and synapses of a phantom into a folder; all or nothing."""
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


def phantom_writer(output: Path) -> Callable[[Path, Phantom, Frame], None]:
    """Return the function that writes `output`, by the end of its name; raises `VolumeError`."""
    if output.suffix.lower() not in WRITERS:
        raise VolumeError(
            f"{output} has no known format: its name should end in one of {', '.join(WRITERS)}."
        )
    return WRITERS[output.suffix.lower()]


def _placed(made: Phantom, frame: Frame):
    """Synapses of a phantom in the world."""
    return made.synapses.replace(
        pre=made.synapses.pre + frame.offset, post=made.synapses.post + frame.offset
    )
