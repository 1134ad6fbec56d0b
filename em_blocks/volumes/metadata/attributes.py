"""Voxel size and offset in the dialects that EM readers look for, as we write them.

funlib (``voxel_size``, ``offset``, ``axis_names``, ``units``), gunpowder (``resolution``) and N5
viewers (``pixelResolution``). All of these and more are read: see `em_blocks.volumes.metadata`.
"""

from __future__ import annotations

from em_blocks.geometry import Frame
from em_blocks.volumes.metadata.claims import SPACE

MEANINGS = ("scale", "neighborhood", "equalized")
"""Attributes that say what the values of a volume mean, wherever a copy of it lies."""


def frame_attributes(frame: Frame, *, channels: bool) -> dict:
    """Return the attributes that describe `frame`, for every reader we know."""
    axes = (["c^"] if channels else []) + list(SPACE)  # ^: funlib's mark of a channel axis
    return {
        "voxel_size": list(frame.voxel_size),
        "resolution": list(frame.voxel_size),
        "offset": list(frame.offset),
        "axis_names": axes,
        "units": ["nm"] * 3,
        "pixelResolution": {"dimensions": list(frame.voxel_size[::-1]), "unit": "nm"},
    }


def are_ours(attributes: dict) -> bool:
    """Return whether these are attributes that `frame_attributes` made."""
    return {"voxel_size", "offset", "axis_names", "pixelResolution"} <= attributes.keys()


def keeps_channel_axis(attributes: dict) -> bool:
    """Return whether `frame_attributes` was told of a channel axis, even of one channel."""
    return are_ours(attributes) and attributes["axis_names"] == ["c^", *SPACE]
