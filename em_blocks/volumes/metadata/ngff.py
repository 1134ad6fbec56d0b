"""OME-NGFF ``multiscales`` of the groups that an array lies in (0.1 to 0.5).

https://ngff.openmicroscopy.org/0.4, /0.5. Positions are centres of voxels; our offset is a corner.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence

from em_blocks.volumes.metadata import cosem
from em_blocks.volumes.metadata.claims import Axes, Group, Place, Stored, corner, in_space
from em_blocks.volumes.metadata.names import normal
from em_blocks.volumes.metadata.units import number, to_nm

_Level = tuple[str, dict, dict]


def named_axes(stored: Stored) -> Iterator[tuple[str, Axes]]:
    """Yield the axes of the array, from every pyramid that it is a level of."""
    for dialect, multiscale, _ in _levels(stored):
        axes = _axes(multiscale)
        if axes is not None and len(axes) == len(stored.shape):
            yield dialect, axes


def places(stored: Stored, axes: Axes) -> Iterator[Place]:
    """Yield the places that all pyramids state of which the array is a level.

    Raises
    ------
    ValueError, TypeError, KeyError
        If it makes no sense.
    """
    for dialect, multiscale, dataset in _levels(stored):
        if isinstance(dataset.get("transform"), dict):
            yield cosem.place(dataset["transform"], dialect)
        elif "coordinateTransformations" in dataset:
            yield _place(multiscale, dataset, dialect)


def multiscales_of(attributes: dict) -> list[dict]:
    """Return the pyramids that the attributes of a group describe."""
    inner = attributes.get("ome")
    found = (inner if isinstance(inner, dict) else attributes).get("multiscales")
    return [m for m in found if isinstance(m, dict)] if isinstance(found, list) else []


def paths_of(multiscale: dict) -> list[str]:
    """Return the paths of the levels below the group, the finest first."""
    datasets = multiscale.get("datasets")
    return [
        posixpath.normpath(d["path"]).strip("/")
        for d in (datasets if isinstance(datasets, list) else [])
        if isinstance(d, dict) and isinstance(d.get("path"), str)
    ]


def _levels(stored: Stored) -> Iterator[_Level]:
    for group in stored.groups:
        for multiscale in multiscales_of(group.attributes):
            for dataset in _named(multiscale, group):
                yield f"the OME-NGFF multiscales of {group.path}", multiscale, dataset


def _named(multiscale: dict, group: Group) -> list[dict]:
    datasets = multiscale.get("datasets")
    return [
        d for d in (datasets if isinstance(datasets, list) else [])
        if isinstance(d, dict) and isinstance(d.get("path"), str)
        and posixpath.normpath(d["path"]).strip("/") == group.name
    ]


def _axes(multiscale: dict) -> Axes | None:
    """Return the names of axes; before 0.4 they were plain text, before 0.3 always the same five."""
    axes = multiscale.get("axes")
    if axes is None:
        return None
    if not isinstance(axes, Sequence):
        raise ValueError(f"'axes' is {axes!r} instead of a list")
    return tuple(_axis(axis) for axis in axes)


def _axis(axis: object) -> str:
    if not isinstance(axis, dict):
        return normal(axis)
    kind = {"time": "t", "channel": "c"}.get(str(axis.get("type")))
    return kind or normal(axis.get("name"))


def _place(multiscale: dict, dataset: dict, dialect: str) -> Place:
    axes = _axes(multiscale) or tuple("tczyx")
    scale, translation, moved = [1.0] * len(axes), [0.0] * len(axes), False
    # First the transformations of the dataset, then those that all datasets share.
    for step in [
        *dataset["coordinateTransformations"],
        *(multiscale.get("coordinateTransformations") or []),
    ]:
        if step["type"] == "scale":
            by = [number(v) for v in step["scale"]]
            scale = [a * b for a, b in zip(scale, by, strict=True)]
            translation = [a * b for a, b in zip(translation, by, strict=True)]
        elif step["type"] == "translation":
            by, moved = [number(v) for v in step["translation"]], True
            translation = [a + b for a, b in zip(translation, by, strict=True)]
        elif step["type"] != "identity":
            raise ValueError(f"the transformation {step['type']!r} is not one of scale, translation")
    units = in_space(_units(multiscale, axes), axes, what="'axes'")
    size, in_nm = to_nm(in_space(scale, axes, what="'scale'"), units)
    centre, _ = to_nm(in_space(translation, axes, what="'translation'"), units)
    return Place(dialect, size, corner(centre, size), states_offset=moved, in_nm=in_nm)


def _units(multiscale: dict, axes: Axes) -> list:
    listed = multiscale.get("axes") or [None] * len(axes)
    return [axis.get("unit") if isinstance(axis, dict) else None for axis in listed]
