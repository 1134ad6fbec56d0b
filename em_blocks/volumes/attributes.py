"""Voxel size, offset and scale in the dialects that EM readers look for.

We write all of them and read any of them: funlib (``voxel_size``, ``offset``, ``axis_names``,
``units``), gunpowder (``resolution``), N5 viewers (``pixelResolution``), COSEM (``transform``)
and the OME-NGFF ``multiscales`` of the group around the array.
"""

from __future__ import annotations

from em_blocks.errors import GeometryError, VolumeError
from em_blocks.geometry import Frame

SPACE = ("z", "y", "x")

_TO_NM = {
    **dict.fromkeys(["nm", "nanometer", "nanometers", "", None], 1.0),
    **dict.fromkeys(["um", "µm", "μm", "micrometer", "micrometers"], 1e3),
    **dict.fromkeys(["mm", "millimeter", "millimeters"], 1e6),
}


def frame_attributes(frame: Frame, *, channels: bool) -> dict:
    """Attributes that describe `frame`, for every reader we know."""
    axes = (["c^"] if channels else []) + list(SPACE)  # ^: funlib's mark of a channel axis
    return {
        "voxel_size": list(frame.voxel_size),
        "resolution": list(frame.voxel_size),
        "offset": list(frame.offset),
        "axis_names": axes,
        "units": ["nm"] * 3,
        "pixelResolution": {"dimensions": list(frame.voxel_size[::-1]), "unit": "nm"},
    }


def has_channel_axis(attributes: dict) -> bool:
    """Whether `frame_attributes` was told of a channel axis, even of one channel."""
    return len(attributes.get("axis_names", SPACE)) == 4


def read_frame(attributes: dict, group: dict, *, name: str, source: str, n5: bool = False) -> Frame:
    """The frame of an array, from its own attributes or those of its group.

    Parameters
    ----------
    attributes, group : dict
        Attributes of the array, and of the group that holds it (for OME-NGFF).
    name : str
        Name of the array in its group.
    source : str
        For the error message.
    n5 : bool
        Whether ``resolution`` and its ``offset`` are (x, y, z), as N5 writers have it.

    Raises
    ------
    VolumeError
        If no dialect gives a voxel size: a guess would move every result. If the axes are
        not (z, y, x), or the attributes make no sense.
    """
    try:
        _check_axes(attributes)
        frame = (
            _funlib(attributes, n5)
            or _cosem(attributes)
            or _ngff(group, name)
            or _pixel_resolution(attributes)
        )
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, GeometryError) as error:
        raise VolumeError(
            f"The attributes of {source} that tell where its voxels lie cannot be understood "
            f"({type(error).__name__}: {error}). Correct them: the plainest form is "
            '"voxel_size": [z, y, x] and "offset": [z, y, x], both in nm.'
        ) from error
    if frame is None:
        raise VolumeError(
            f"{source} does not say how large its voxels are: it has none of the attributes "
            "voxel_size, resolution, transform, pixelResolution, and no OME-NGFF multiscales in "
            "its group. Without it no position in nm is right; add the attributes "
            '"voxel_size": [z, y, x] (nm) and "offset": [z, y, x] (nm).'
        )
    return frame


def _check_axes(attributes: dict) -> None:
    """Raise ValueError if the axes are named, and not in the order (c, z, y, x)."""
    names = attributes.get("axis_names", SPACE)
    space = [n for n in names if n in SPACE]
    channel_behind = any(n.endswith("^") for n in names[1:])
    if channel_behind or (len(space) == 3 and tuple(space) != SPACE):
        raise ValueError(f"the axes are {names}, but channels first, then z, y, x are needed")


def _nm_per(unit: str | None) -> float:
    if unit not in _TO_NM:
        raise ValueError(f"the unit {unit!r} is unknown; nm, um and mm are known")
    return _TO_NM[unit]


def _frame(size, offset, units) -> Frame:
    """A frame from three values each, in any unit of length."""
    factors = [_nm_per(unit) for unit in units]
    return Frame(
        [s * f for s, f in zip(size, factors, strict=True)],
        [o * f for o, f in zip(offset, factors, strict=True)],
    )


def _funlib(attributes: dict, n5: bool) -> Frame | None:
    size = attributes.get("voxel_size", attributes.get("resolution"))
    if size is None:
        return None
    values = [
        size,
        attributes.get("offset") or [0.0] * len(size),
        attributes.get("units") or [None] * len(size),
    ]
    # N5 writers have `resolution` x first, and behind it what belongs to channels;
    # funlib's `voxel_size` is z first in N5 too.
    if n5 and "voxel_size" not in attributes:
        return _frame(*(v[:3][::-1] for v in values))
    return _frame(*(v[-3:] for v in values))


def _cosem(attributes: dict) -> Frame | None:
    transform = attributes.get("transform")
    if not isinstance(transform, dict) or "scale" not in transform:
        return None
    axes = list(transform.get("axes", SPACE))
    values = [
        transform["scale"],
        transform.get("translate") or [0.0] * len(axes),
        transform.get("units") or [None] * len(axes),
    ]
    size, centre, units = ([v[axes.index(a)] for a in SPACE] for v in values)
    # COSEM gives the centre of the first voxel; our offset is its corner.
    return _frame(size, _corner(centre, size), units)


def _ngff(group: dict, name: str) -> Frame | None:
    for multiscale in group.get("ome", group).get("multiscales") or []:
        for dataset in multiscale["datasets"]:
            if dataset["path"] == name:
                return _ngff_frame(multiscale, dataset)
    return None


def _ngff_frame(multiscale: dict, dataset: dict) -> Frame:
    axes = multiscale["axes"]
    names = [axis["name"] for axis in axes]
    scale, translation = [1.0] * len(axes), [0.0] * len(axes)
    # First the transformations of the dataset, then those that all datasets share.
    for step in [
        *dataset["coordinateTransformations"],
        *multiscale.get("coordinateTransformations", []),
    ]:
        if step["type"] == "scale":
            scale = [a * b for a, b in zip(scale, step["scale"], strict=True)]
            translation = [a * b for a, b in zip(translation, step["scale"], strict=True)]
        if step["type"] == "translation":
            translation = [a + b for a, b in zip(translation, step["translation"], strict=True)]
    if [n for n in names if n in SPACE] != list(SPACE):
        raise ValueError(f"the axes are {names}, but channels first, then z, y, x are needed")
    size, centre, units = (
        [v[names.index(a)] for a in SPACE]
        for v in (scale, translation, [axis.get("unit") for axis in axes])
    )
    # NGFF positions are voxel centres as well.
    return _frame(size, _corner(centre, size), units)


def _corner(centre: list[float], size: list[float]) -> list[float]:
    return [c - s / 2 for c, s in zip(centre, size, strict=True)]


def _pixel_resolution(attributes: dict) -> Frame | None:
    resolution, unit = attributes.get("pixelResolution"), None
    if isinstance(resolution, dict):
        resolution, unit = resolution["dimensions"], resolution.get("unit")
    return _frame(resolution[:3][::-1], [0.0] * 3, [unit] * 3) if resolution else None
