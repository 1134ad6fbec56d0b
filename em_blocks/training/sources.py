"""Training data: raw and labels from zarr arrays or from the phantom generator."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr

from em_blocks.errors import ConfigError, GeometryError
from em_blocks.kernels.phantom import phantom
from em_blocks.kernels.synapses import Synapses
from em_blocks.training.config import DataSource
from em_blocks.volumes.synapse_files import read_synapses


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


def open_source(source: DataSource, voxel_size: tuple[float, float, float]) -> TrainingData:
    """Open or generate one source and check that it fits.

    Raises
    ------
    ConfigError
        If an array is missing or of another type than the network needs.
    GeometryError
        If shapes or voxel sizes differ, or the used box is outside.
    """
    name, raw, labels, synapses = _content(source, voxel_size)
    if raw.ndim != 3 or raw.shape != labels.shape:
        raise GeometryError(
            f"{name}: raw has shape {raw.shape} and labels {labels.shape}; both must be the same "
            "(z, y, x) volume. Crop or resample one of them."
        )
    if raw.dtype != np.uint8 or labels.dtype.kind != "u":
        raise ConfigError(
            f"{name}: raw is {raw.dtype} and labels are {labels.dtype}; training needs uint8 "
            "intensities and unsigned labels. Convert them with `em-blocks ingest`."
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
    for z in range(data.begin[0], data.end[0]):
        section = (z, *data.box[1:])
        digest.update(np.ascontiguousarray(data.raw[section]))
        digest.update(np.ascontiguousarray(data.labels[section].astype("<u8")))
    if data.synapses is not None:
        digest.update(np.concatenate([data.synapses.pre, data.synapses.post]).astype("<f8"))
    return {
        "name": data.name,
        "begin": list(data.begin),
        "end": list(data.end),
        "weight": data.weight,
        "sha256": digest.hexdigest(),
    }


def _content(source: DataSource, voxel_size) -> tuple[str, object, object, Synapses | None]:
    if source.phantom is None:
        raw, labels = (_open(path, voxel_size) for path in (source.raw, source.labels))
        return "/".join(source.raw.parts[-2:]), raw, labels, _synapses(source, raw, voxel_size)
    spec = source.phantom
    made = phantom(spec.shape, voxel_size=voxel_size, **spec.model_dump(exclude={"shape"}))
    synapses = made.synapses if spec.synapses_per_um3 else None
    return f"phantom of seed {spec.seed}", made.raw, made.neurons, synapses


def _synapses(source: DataSource, raw: zarr.Array, voxel_size) -> Synapses | None:
    """Partners from a file, whose positions count from the world's origin."""
    if source.synapses is None:
        return None
    found = read_synapses(source.synapses, voxel_size=voxel_size)
    offset = np.asarray(raw.attrs.get("offset", (0, 0, 0)), float)
    return found.replace(pre=found.pre - offset, post=found.post - offset)


def _open(path: Path, voxel_size) -> zarr.Array:
    try:
        array = zarr.open_array(str(path), mode="r")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The training data {path} cannot be opened as a zarr array ({error}). The setup's "
            "README says where its data comes from and which `em-blocks ingest` config makes it."
        ) from error
    found = array.attrs.get("voxel_size", array.attrs.get("resolution"))
    if found is None or not np.allclose(found, voxel_size):
        raise GeometryError(
            f"{path} has voxel size {found}, the setup is made for {voxel_size} nm (zyx). A "
            "network only works at the resolution it was trained for: resample the data, or "
            "correct the attribute `voxel_size`."
        )
    return array
