"""Locations of sites as CREMI's scorer reads them: the voxel of ``round(location / resolution)``.

A location is the index of a voxel times its size, so the middle of voxel 0 has the location 0; as a
position it is half a voxel from the corner of the volume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from em_blocks.errors import SynapseFileError
from em_blocks.geometry import Frame, Nm3, triple
from em_blocks.kernels.transforms.positions import ROUNDING_VOXELS

GROUP = "annotations"

VOLUMES: dict[str, tuple[str, np.dtype]] = {
    "raw": ("volumes/raw", np.dtype("uint8")),
    "neuron_ids": ("volumes/labels/neuron_ids", np.dtype("uint64")),
    "clefts": ("volumes/labels/clefts", np.dtype("uint64")),
}
"""Name of a volume, the dataset that holds it, and its type."""
RESOLUTION = "resolution"
# Of volumes that differ, the scorer uses the voxels of the neurons.
_WHOSE_VOXELS = ("neuron_ids", "clefts", "raw")
# How far, in voxels, a site on a face between two voxels is moved into its own; far below what a
# position can mean, and above the rounding errors of the division that follows.
_INTO_VOXEL = ROUNDING_VOXELS / 10


class CremiVolume(NamedTuple):
    """A volume to be written beside the annotations."""

    values: np.ndarray  # (z, y, x)
    frame: Frame


def resolution_in(path: Path, file: h5py.File) -> Nm3 | None:
    """Return the voxel size, nm (z, y, x), that locations of an open file count; None if not stated."""
    for name in (GROUP, *(VOLUMES[name][0] for name in _WHOSE_VOXELS)):
        if name in file and RESOLUTION in file[name].attrs:
            found = np.ravel(file[name].attrs[RESOLUTION])
            is_size = found.shape == (3,) and found.dtype.kind in "fui"
            if not is_size or not (np.isfinite(found) & (found > 0)).all():
                raise SynapseFileError(
                    f"The attribute 'resolution' of {name} in {path} is {found.tolist()}, but three "
                    "positive numbers in nm (z, y, x) are needed: locations are indices of voxels "
                    "times their size."
                )
            return tuple(found.astype(float).tolist())
    return None


def half_a_voxel(
    path: Path, own: Sequence[float] | None, said: Sequence[float] | None
) -> np.ndarray:
    """Return the shift from a location to the position that it means, nm (z, y, x)."""
    if own is None and said is None:
        raise SynapseFileError(
            f"{path} does not say how large its voxels are, and no voxel_size was given. A location in "
            "a CREMI file is the index of a voxel times its size, half a voxel before the middle of it, "
            "so without the size every site lies elsewhere. Name the voxel_size (nm, zyx), or keep "
            "annotations and volumes/labels/neuron_ids with its attribute resolution in one file."
        )
    return np.asarray(said if own is None else own, float) / 2


def frame_of(
    path: Path, volumes: Mapping[str, CremiVolume], voxel_size: Sequence[float] | None,
    offset: Sequence[float],
) -> Frame:
    """Return the voxels that locations are counted in."""
    if voxel_size is not None:
        return Frame(triple(voxel_size), triple(offset))
    found = [volumes[name].frame for name in _WHOSE_VOXELS if name in volumes]
    if not found:
        raise SynapseFileError(
            f"{path} would hold locations that are indices of voxels times their size, so the size is "
            "needed: got no voxel_size and no volume. Name the voxel_size (nm, zyx) of the volume of "
            "neurons that the file will be compared with."
        )
    return found[0]


def locations_of(positions: np.ndarray, frame: Frame) -> np.ndarray:
    """Return positions as CREMI writes them, so that any rounding finds the voxel that holds them.

    Half an index is rounded up by the scorer's Python 2 and to the next even number by Python 3. So
    a position on a face between voxels is moved a little into the upper one, which holds it.
    """
    size, offset = np.array(frame.voxel_size), np.array(frame.offset)
    voxels = (positions - offset) / size
    face = np.rint(voxels)
    is_on_face = np.abs(voxels - face) < ROUNDING_VOXELS
    moved = np.where(is_on_face, offset + (face + _INTO_VOXEL) * size, positions)
    return moved - size / 2
