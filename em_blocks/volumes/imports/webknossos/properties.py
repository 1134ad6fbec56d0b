"""The description of a WEBKNOSSOS data set, ``datasource-properties.json``: lengths and axes x first."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from em_blocks.errors import ConfigError
from em_blocks.geometry import Nm3, Triple, triple
from em_blocks.volumes.metadata.units import nm_per, number

FILE = "datasource-properties.json"


class Magnification(NamedTuple):
    """One array of a layer."""

    name: str  # as its folder is called: 1, or 2-2-1
    path: Path
    format: str  # wkw, zarr, zarr3 ...
    axes: tuple[str, ...]  # of the array, as stored
    voxel_size: Nm3  # nm (z, y, x)
    offset: Nm3  # nm (z, y, x), of the first corner of its bounding box
    begin: Triple  # of the bounding box, voxels (z, y, x) of the array
    shape: Triple  # voxels (z, y, x)


def read_magnification(folder: Path, layer: str | None, mag: str | None) -> Magnification:
    """Return one array of a data set.

    Parameters
    ----------
    folder : Path
        Of the data set.
    layer : str, optional
        Its name; needed where there are several.
    mag : str, optional
        ``1``, or ``2-2-1`` (x, y, z). Default: the finest.

    Raises
    ------
    ConfigError
        If there is no such array, or the description makes no sense.
    """
    values = _read(folder)
    try:
        layers = {str(one["name"]): one for one in values["dataLayers"]}
        chosen = layers[_choice(folder, "layer", layer, list(layers))]
        mags = {_mag_name(size): (size, path) for size, path, _ in _mags(chosen)}
        finest = min(mags, key=lambda name: math.prod(mags[name][0]))
        name = _choice(folder, "mag", _mag_name(_size(mag)) if mag else finest, list(mags))
        axes = {_mag_name(size): order for size, _, order in _mags(chosen)}[name]
        return _magnification(folder, values["scale"], chosen, name, *mags[name], axes)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{folder / FILE} cannot be understood ({type(error).__name__}: {error}). It should "
            "describe 'scale' and 'dataLayers' as WEBKNOSSOS writes them; correct it, or ingest the "
            'array itself by the source type "volume".'
        ) from error


def _read(folder: Path) -> dict:
    try:
        return json.loads((folder / FILE).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder / FILE} cannot be read: {error}. Name the folder of a WEBKNOSSOS data set, which "
            "holds this file and a folder per layer."
        ) from error


def _choice(folder: Path, key: str, wanted: str | None, names: list[str]) -> str:
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted not in names:
        found = "several layers" if wanted is None else f"no {key} {wanted!r}"
        raise ConfigError(
            f"The data set {folder} has {found}; "
            f"there are {', '.join(names) or 'none'}. Name one by the key '{key}'."
        )
    return wanted


def _mags(layer: dict) -> list[tuple[list[int], str | None, dict | None]]:
    """Return size (x, y, z), path and order of axes of every array; older files name them otherwise."""
    found = layer.get("mags") or layer.get("wkwResolutions") or []
    return [
        (_size(one.get("mag", one.get("resolution"))), one.get("path"), one.get("axisOrder"))
        for one in found
    ]


def _size(mag: Any) -> list[int]:
    """Return a magnification as (x, y, z): of 2, ``2``, ``2-2-1``, [2, 2, 1]."""
    parts = mag.split("-") if isinstance(mag, str) else mag if isinstance(mag, list) else [mag]
    sizes = [int(part) for part in parts]
    sizes = sizes * 3 if len(sizes) == 1 else sizes
    if len(sizes) != 3 or min(sizes) < 1:
        raise ConfigError(f"The magnification {mag!r} is not of the form 2 or 2-2-1 (x, y, z).")
    return sizes


def _mag_name(size: Sequence[int]) -> str:
    return str(size[0]) if len(set(size)) == 1 else "-".join(map(str, size))


def _magnification(
    folder: Path, scale: Any, layer: dict, name: str, mag: list[int], path: str | None,
    order: dict | None,
) -> Magnification:
    box = layer["boundingBox"]
    corner, extent = box["topLeft"], [box["width"], box["height"], box["depth"]]
    begin = [int(c) // m for c, m in zip(corner, mag, strict=True)]
    end = [-(-(int(c) + int(e)) // m) for c, e, m in zip(corner, extent, mag, strict=True)]
    voxel = [size * m for size, m in zip(_scale(scale), mag, strict=True)]
    order = order or {"c": 0, "x": 1, "y": 2, "z": 3}
    return Magnification(
        name, folder / (path or f"{layer['name']}/{name}"), str(layer["dataFormat"]),
        tuple(sorted(order, key=order.__getitem__)), triple(voxel[::-1]),
        triple([
            b * v + m for b, v, m in zip(begin, voxel, _moved(layer, _scale(scale)), strict=True)
        ][::-1]),
        triple(begin[::-1]),
        triple([e - b for b, e in zip(begin, end, strict=True)][::-1]),
    )


def _scale(scale: Any) -> list[float]:
    """Return the voxel size (x, y, z) in nm, which older files list without a unit."""
    if isinstance(scale, list):
        return [number(value) for value in scale]
    factor = nm_per(scale["unit"])
    if factor is None:
        raise ValueError(f"the unit of 'scale' is {scale['unit']!r}")
    return [number(value) * factor for value in scale["factor"]]


def _moved(layer: dict, scale: Sequence[float]) -> list[float]:
    """Return how far a layer is moved within its data set, nm (x, y, z)."""
    moved = [0.0, 0.0, 0.0]
    for step in layer.get("coordinateTransformations") or []:
        rows = step["matrix"] if step.get("type") == "affine" else []
        straight = rows and all(
            abs(number(rows[n][m]) - (n == m)) < 1e-9 for n in range(3) for m in range(3)
        )
        if not straight:
            raise ConfigError(
                f"The layer {layer['name']!r} is transformed by its data set ({step.get('type')}), and "
                "not only moved, so its axes are not those of the world. Apply the transformation in "
                "WEBKNOSSOS, or take it out of the description."
            )
        moved = [m + number(rows[n][3]) * scale[n] for n, m in enumerate(moved)]
    return moved
