"""Training data: raw and labels from zarr arrays or from the phantom generator."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr

from em_blocks.errors import ConfigError, GeometryError
from em_blocks.geometry import TOLERANCE_VOXELS, Box, Frame, Nm3
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.kernels.synthetic.volume import phantom
from em_blocks.models.sources import DataSource
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.ledger import require_complete
from em_blocks.volumes.synapse_files import read_synapses

VOXEL_SIZE_TOLERANCE = 0.01
"""Of the voxel size of data against that of the setup: such a difference changes no picture."""
SAME_VOXEL_SIZE = 1e-4
"""Of raw against its labels: half a voxel after 5,000."""
OTHER_DATA = 'docs/training.md, "Other data", shows how'


class TrainingData(NamedTuple):
    """One opened source. `raw` and `labels` are sliceable and of one shape."""

    name: str
    raw: np.ndarray | zarr.Array  # (z, y, x) uint8
    labels: np.ndarray | zarr.Array  # (z, y, x) ids, 0 unknown
    begin: tuple[int, int, int]  # used voxels
    end: tuple[int, int, int]
    weight: float
    synapses: Synapses | None = None  # nm from the corner of the first voxel of raw

    @property
    def box(self) -> tuple[slice, slice, slice]:
        return tuple(slice(first, last) for first, last in zip(self.begin, self.end, strict=True))

    def slabs(self) -> Iterator[tuple[slice, slice, slice]]:
        """Parts of the box as thick as a chunk of labels: all fits into memory, each is read once."""
        thick = getattr(self.labels, "chunks", (1,))[0]
        for z in range(self.begin[0], self.end[0], thick):
            yield (slice(z, min(z + thick, self.end[0])), *self.box[1:])


def open_source(source: DataSource, voxel_size: Nm3) -> TrainingData:
    """Open or generate one source and check that it fits.

    Parameters
    ----------
    voxel_size : (3,) floats
        nm (z, y, x) that the setup is made for.

    Raises
    ------
    ConfigError, VolumeError
        If an array is missing or of another type than the network needs.
    IncompleteInputError
        If a run has not made all of it.
    GeometryError
        If shapes, places or voxel sizes differ, or the used box is outside.
    """
    name, raw, labels, synapses = _content(source, voxel_size)
    if raw.ndim != 3 or raw.shape != labels.shape:
        raise GeometryError(
            f"{name}: raw has shape {raw.shape} and labels {labels.shape}; both must be the same "
            "(z, y, x) volume, because a training pairs them voxel by voxel. Copy the region that "
            f"both have into arrays of their own ({OTHER_DATA})."
        )
    if raw.dtype != np.uint8 or labels.dtype.kind != "u":
        raise ConfigError(
            f"{name}: raw is {raw.dtype} and labels are {labels.dtype}; training needs uint8 "
            "intensities and unsigned labels, in which 0 is unknown. Copy the array of the other type "
            f"with its values converted ({OTHER_DATA})."
        )
    end = source.end or raw.shape
    if any(
        not first < last <= size
        for first, last, size in zip(source.begin, end, raw.shape, strict=True)
    ):
        raise GeometryError(
            f"{name}: the box from {source.begin} to {end} (voxels, zyx) is empty or not inside "
            f"the volume of {raw.shape}. Correct `begin` and `end`."
        )
    return TrainingData(
        name, raw, labels, tuple(source.begin), tuple(end), source.weight, synapses
    )


def describe(data: TrainingData) -> dict:
    """What a run record says of a source: name, used box, sha256 of the used voxels."""
    digest = hashlib.sha256()
    for slab in data.slabs():
        for raw, labels in zip(data.raw[slab], data.labels[slab], strict=True):
            digest.update(np.ascontiguousarray(raw))
            digest.update(np.ascontiguousarray(labels.astype("<u8")))
    if data.synapses is not None:
        digest.update(np.concatenate([data.synapses.pre, data.synapses.post]).astype("<f8"))
    return {
        "name": data.name,
        "begin": list(data.begin),
        "end": list(data.end),
        "weight": data.weight,
        "sha256": digest.hexdigest(),
    }


def _content(
    source: DataSource, voxel_size: Nm3
) -> tuple[str, object, object, Synapses | None]:
    if source.phantom is None:
        raw, labels = (_open(path, voxel_size) for path in (source.raw, source.labels))
        _check_same_place(source, raw.frame, labels.frame, voxel_size)
        name = "/".join(source.raw.parts[-2:])
        return name, raw.array, labels.array, _synapses(source, raw.frame, voxel_size)
    spec = source.phantom
    made = phantom(spec.shape, voxel_size=voxel_size, **spec.model_dump(exclude={"shape"}))
    synapses = made.synapses if spec.synapses_per_um3 else None
    return f"phantom of seed {spec.seed}", made.raw, made.neurons, synapses


def _synapses(source: DataSource, raw: Frame, voxel_size: Nm3) -> Synapses | None:
    """Partners from a file, whose positions count from the world's origin.

    The result counts from the first voxel of raw, in voxels of the setup's size: where those of the
    data differ a little, sites would else drift away from what they mark.
    """
    if source.synapses is None:
        return None
    found = read_synapses(source.synapses, voxel_size=raw.voxel_size)
    offset, stretch = np.array(raw.offset), np.divide(voxel_size, raw.voxel_size)
    return found.replace(pre=(found.pre - offset) * stretch, post=(found.post - offset) * stretch)


class _Opened(NamedTuple):
    array: zarr.Array
    frame: Frame


def _open(path: Path, voxel_size: Nm3) -> _Opened:
    require_complete(str(path), name="training data")
    volume = Volume.open(str(path))
    if volume.format != "zarr":
        raise ConfigError(
            f"The training data {path} is of the format {volume.format}; training reads arrays of zarr "
            f"version 2, which `em-blocks ingest` makes of images and HDF5. Copy it ({OTHER_DATA})."
        )
    frame = volume.frame
    if not np.allclose(frame.voxel_size, voxel_size, rtol=VOXEL_SIZE_TOLERANCE, atol=0):
        raise GeometryError(
            f"{path} has voxel size {frame.voxel_size}, the setup is made for {tuple(voxel_size)} nm "
            "(zyx); up to 1 % of difference is allowed. A network only works at the resolution it "
            "was trained for: use data of the setup's resolution (`em-blocks downsample` makes "
            "coarser ones), set `voxel_size` of the setup to that of the data, or correct the "
            "attribute `voxel_size` of the array if that is wrong."
        )
    array = zarr.open_array(str(path), mode="r")
    if array.shape != volume.shape or not _same_values(array, volume):
        raise ConfigError(
            f"{path} is stored as {array.shape} and means {volume.shape} voxels (zyx): its axes are not "
            "z, y, x in this order, and training reads arrays as they are stored. Copy it "
            f"({OTHER_DATA})."
        )
    return _Opened(array, frame)


def _same_values(array: zarr.Array, volume: Volume, side: int = 16) -> bool:
    """Whether samples of both agree: a volume has its axes turned to (z, y, x)."""
    corners = itertools.product(*[{n // 4, 3 * n // 4} for n in volume.shape])
    boxes = (Box(corner, (side,) * 3).intersect(volume.box) for corner in corners)
    return all(np.array_equal(array[box.slices], volume.read(box)) for box in boxes)


def _check_same_place(source: DataSource, raw: Frame, labels: Frame, voxel_size: Nm3) -> None:
    """Raise `GeometryError` unless voxel i of raw is voxel i of labels."""
    drift = np.subtract(labels.voxel_size, raw.voxel_size) / raw.voxel_size
    if np.abs(drift).max() > SAME_VOXEL_SIZE:
        raise GeometryError(
            f"{source.raw} has voxel size {raw.voxel_size} and its labels {source.labels} have "
            f"{labels.voxel_size} nm (zyx). A training pairs them voxel by voxel, so they would drift "
            "apart. Correct the attribute `voxel_size` that is wrong, or resample one of them."
        )
    apart = np.abs(np.subtract(labels.offset, raw.offset)) / voxel_size
    if apart.max() > TOLERANCE_VOXELS:
        raise GeometryError(
            f"{source.raw} has offset {raw.offset} and its labels {source.labels} have "
            f"{labels.offset} nm (zyx). A training pairs them voxel by voxel, so it would learn from "
            "labels that lie elsewhere. Copy the region that both have into arrays with one offset "
            f"({OTHER_DATA}), or correct the attribute `offset` that is wrong."
        )
