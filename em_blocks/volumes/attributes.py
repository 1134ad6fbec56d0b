"""Voxel size, offset and scale in the dialects that EM readers look for.

We write all of them and read any of them: funlib (``voxel_size``, ``offset``, ``axis_names``,
``units``), gunpowder (``resolution``), N5 viewers (``pixelResolution``), COSEM (``transform``)
and the OME-NGFF ``multiscales`` of the group around the array.
"""

from __future__ import annotations

from em_blocks.errors import VolumeError
from em_blocks.geometry import Frame

SPACE = ("z", "y", "x")


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


def read_frame(attributes: dict, group: dict, name: str, source: str) -> Frame:
    """The frame of an array, from its own attributes or those of its group.

    Parameters
    ----------
    attributes, group : dict
        Attributes of the array, and of the group that holds it (for OME-NGFF).
    name : str
        Name of the array in its group.
    source : str
        For the error message.

    Raises
    ------
    VolumeError
        If no dialect gives a voxel size: a guess would move every result.
    """
    for read in (_funlib, _cosem, lambda a: _ngff(group, name), _pixel_resolution):
        if frame := read(attributes):
            return frame
    raise VolumeError(
        f"{source} does not say how large its voxels are: none of the attributes voxel_size, "
        "resolution, transform, pixelResolution, and no OME-NGFF multiscales in its group. Without "
        "it no position in nm is right; add the attributes "
        '"voxel_size": [z, y, x] (nm) and "offset": [z, y, x] (nm).'
    )


def _funlib(attributes: dict) -> Frame | None:
    size = attributes.get("voxel_size", attributes.get("resolution"))
    if size is None:
        return None
    offset = attributes.get("offset", [0.0] * len(size))
    size, offset = size[-3:], offset[-3:]
    if [str(a).rstrip("^") for a in attributes.get("axis_names", SPACE)][-3:] == ["x", "y", "z"]:
        size, offset = size[::-1], offset[::-1]
    return Frame(size, offset)


def _cosem(attributes: dict) -> Frame | None:
    transform = attributes.get("transform")
    if not isinstance(transform, dict) or "scale" not in transform:
        return None
    axes = list(transform.get("axes", SPACE))
    order = [axes.index(a) for a in SPACE]
    # COSEM gives the centre of the first voxel; our offset is its corner.
    scale = [transform["scale"][i] for i in order]
    centre = [transform.get("translate", [0.0] * len(axes))[i] for i in order]
    return Frame(scale, [c - s / 2 for c, s in zip(centre, scale, strict=True)])


_TO_NM = {"nanometer": 1.0, "micrometer": 1e3, "millimeter": 1e6, None: 1.0}


def _ngff(group: dict, name: str) -> Frame | None:
    multiscales = group.get("ome", group).get("multiscales")
    if not multiscales:
        return None
    units = [_TO_NM[axis.get("unit")] for axis in multiscales[0]["axes"]][-3:]
    for dataset in multiscales[0]["datasets"]:
        if dataset["path"] == name:
            scale, translation = [1.0] * 3, [0.0] * 3
            for step in dataset["coordinateTransformations"]:
                if step["type"] == "scale":
                    scale = step["scale"][-3:]
                if step["type"] == "translation":
                    translation = step["translation"][-3:]
            # NGFF positions are voxel centres as well.
            return Frame(
                [s * u for s, u in zip(scale, units, strict=True)],
                [(t - s / 2) * u for t, s, u in zip(translation, scale, units, strict=True)],
            )
    return None


def _pixel_resolution(attributes: dict) -> Frame | None:
    resolution = attributes.get("pixelResolution")
    if isinstance(resolution, dict):
        resolution = resolution.get("dimensions")
    return Frame(resolution[::-1]) if resolution else None
