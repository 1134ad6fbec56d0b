"""The region of a volume that a task works on."""

from __future__ import annotations

from em_blocks.config import RoiConfig, VolumeRef
from em_blocks.errors import GeometryError
from em_blocks.geometry import Box, Frame, Roi, Triple
from em_blocks.volumes import Volume
from em_blocks.volumes.values import Values, describe, placed_values


def box_of(roi: RoiConfig | None, volume: Volume | Values, role: str) -> Box:
    """Return the voxels of `volume` in the region `roi`, or all; `role` names it in messages.

    Raises
    ------
    GeometryError
        If the region is empty or not inside the volume.
    """
    if roi is None:
        return volume.box
    box = volume.frame.to_box(Roi(roi.offset, roi.shape))
    if not volume.box.contains(box) or box.size == 0:
        raise GeometryError(
            f"The ROI with offset {roi.offset} and shape {roi.shape} (nm, zyx) is not inside the "
            f"{role} {volume.path}, which has offset {volume.roi.offset} and shape "
            f"{volume.roi.shape}. There is nothing to read outside; correct the ROI."
        )
    return box


def region_of(volume: VolumeRef, roi: RoiConfig | None) -> tuple[Frame, Triple]:
    """Return frame and shape, voxels (z, y, x), of a region of a volume."""
    found = placed_values(describe(volume))
    box, frame = box_of(roi, found, "volume"), found.place
    return Frame(frame.voxel_size, frame.to_roi(box).offset), box.shape
