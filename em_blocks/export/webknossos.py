"""Volumes as layers of a WEBKNOSSOS data set: a description beside them, no copy of a voxel.

WEBKNOSSOS reads arrays of zarr v2 and v3 in any order of axes, where ``datasource-properties.json`` in a
folder above says it. Lengths and axes in it are x first.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from em_blocks.config import is_url
from em_blocks.errors import ConfigError, RefusedError
from em_blocks.json_text import json_text
from em_blocks.volumes.formats.storage import detect
from em_blocks.volumes.imports.webknossos.properties import FILE
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.whole_files import written_whole
from em_blocks.volumes.viewer.neuroglancer import Shown, levels_of
from em_blocks.volumes.volume import Volume

_FORMATS = ("zarr", "zarr3")
_CLASSES = {
    **{name: name for name in (
        "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"
    )},
    "float32": "float", "float64": "double",
}
_SHIFT_VOXELS = 1e-3
"""Of levels against each other, that is rounding."""


def describe(folder: Path, layers: dict[str, str]) -> dict:
    """Return the description of volumes as a data set.

    Parameters
    ----------
    folder : Path
        Of the data set; all volumes lie below it.
    layers : dict of str to str
        Path of an array, or of the group of a pyramid, by the name of the layer.

    Raises
    ------
    ConfigError
        If WEBKNOSSOS cannot read a volume, or their voxel sizes do not fit each other.
    """
    volumes = {name: _levels(folder, path) for name, path in layers.items()}
    finest = np.min([levels[0].voxel_size for levels in volumes.values()], axis=0)
    return {
        "id": {"name": folder.resolve().name.removesuffix(".zarr"), "team": ""},
        "scale": {"factor": finest[::-1].tolist(), "unit": "nanometer"},
        "dataLayers": [_layer(folder, name, levels, finest) for name, levels in volumes.items()],
        "version": 1,
    }


def write_description(folder: Path, description: dict, *, overwrite: bool = False) -> Path:
    """Write a description into the folder of its data set; return its path.

    Raises
    ------
    RefusedError
        If there is another one, which may name other layers.
    """
    path, text = folder / FILE, json_text(description, indent=2) + "\n"
    if path.exists() and path.read_text() != text and not overwrite:
        raise RefusedError(
            f"{path} describes other layers, or these before they changed. Give --overwrite to replace "
            "it; layers that are not named again are no longer part of the data set then."
        )
    with written_whole(path) as partial:
        partial.write_text(text)
    return path


def _levels(folder: Path, path: str) -> list[Volume]:
    """Return the arrays of a layer, the finest first; raises `ConfigError` for what cannot be read."""
    if is_url(path):
        raise ConfigError(
            f"{path} is in an object store, but a data set is described in a local folder. In "
            "WEBKNOSSOS, add such a volume by its URL (Add Remote Dataset), which needs no description."
        )
    levels = [path] if detect(path) is not None else levels_of(path)
    volumes = [Volume.open(level) for level in levels or [path]]
    for volume in volumes:
        _check(folder, volume)
        shift = np.subtract(volume.offset, volumes[0].offset) / volumes[0].voxel_size
        if np.abs(shift).max() > _SHIFT_VOXELS:
            raise ConfigError(
                f"{volume.path} begins at {volume.offset} nm, the finest level of its pyramid at "
                f"{volumes[0].offset} nm (zyx), but in WEBKNOSSOS all levels begin at one place. "
                "Make the pyramid with `em-blocks downsample`, as zarr."
            )
    return volumes


def _check(folder: Path, volume: Volume) -> None:
    """Raise `ConfigError` unless WEBKNOSSOS reads an array from the folder of a data set."""
    if volume.format not in _FORMATS:
        raise ConfigError(
            f"{volume.path} is stored as {volume.format}; of arrays of em_blocks, WEBKNOSSOS reads "
            f"{' and '.join(_FORMATS)}. Copy it by `em-blocks ingest` with the source type \"volume\"."
        )
    if _relative(folder, volume.path).startswith(os.pardir):
        raise ConfigError(
            f"{volume.path} does not lie in the folder {folder} of the data set, and WEBKNOSSOS reads "
            "nothing outside of it. Name a folder that holds all volumes by --dataset."
        )
    colours = volume.channels == 3 and volume.dtype == np.uint8
    if volume.dtype.name not in _CLASSES or (volume.channels not in (None, 1) and not colours):
        raise ConfigError(
            f"{volume.path} holds {volume.channels or 1} channels of {volume.dtype}, but a layer of "
            f"WEBKNOSSOS has one channel of {', '.join(_CLASSES)}, or three of uint8. Write one channel "
            "as a volume of its own."
        )


def _relative(folder: Path, path: str) -> str:
    return os.path.relpath(os.path.realpath(path), folder.resolve())


def _layer(folder: Path, name: str, levels: Sequence[Volume], finest: np.ndarray) -> dict:
    first = levels[0]
    mags = [_mag(volume, finest) for volume in levels]
    width, height, depth = (np.array(first.shape) * mags[0])[::-1].tolist()
    labels = Shown.open(first.path, name).role == "labels"
    shift = np.divide(first.offset, finest)[::-1]
    layer = {
        "name": name, "category": "segmentation" if labels else "color",
        "boundingBox": {"topLeft": [0, 0, 0], "width": width, "height": height, "depth": depth},
        "dataFormat": first.format,
        "elementClass": "uint24" if first.channels == 3 else _CLASSES[first.dtype.name],
        "numChannels": first.channels or 1,
        "mags": [
            {"mag": mag[::-1].tolist(), "path": f"./{_relative(folder, volume.path)}",
             "axisOrder": {axis: n for n, axis in enumerate(volume.arrangement.axes)}}
            for mag, volume in zip(mags, levels, strict=True)
        ],
    }
    return layer | ({"coordinateTransformations": [_moved(shift)]} if shift.any() else {})


def _mag(volume: Volume, finest: np.ndarray) -> np.ndarray:
    """Return how many of the finest voxels (z, y, x) a voxel is; raises `ConfigError`."""
    ratio = np.divide(volume.voxel_size, finest)
    whole = np.rint(ratio).astype(int)
    if np.abs(ratio - whole).max() > _SHIFT_VOXELS or (whole & (whole - 1)).any():
        raise ConfigError(
            f"The voxels of {volume.path} are {volume.voxel_size} nm, {ratio.round(3).tolist()} "
            f"times the finest {finest.tolist()} nm (zyx), but the magnifications of a data set are "
            "1, 2, 4, 8 ... Describe volumes of other voxel sizes as data sets of their own."
        )
    return whole


def _moved(shift: np.ndarray) -> dict:
    """Return the transformation of a layer by finest voxels (x, y, z)."""
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    return {"type": "affine", "matrix": matrix.tolist()}


def layer_name(path: str) -> str:
    """Return the name of a layer that is not given one: that of its array or pyramid."""
    return store.split_parent(path)[1].removesuffix(".zarr")
