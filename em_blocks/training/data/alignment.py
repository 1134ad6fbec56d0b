"""Pair raw, labels and masks of a source by their place in nm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from em_blocks.errors import GeometryError
from em_blocks.geometry import TOLERANCE_VOXELS, Box, Frame, Nm3, Roi, Triple, triple
from em_blocks.models.sources import DataSource
from em_blocks.training.data.reading.placement import Placement
from em_blocks.training.data.reading.voxels import StoredVoxels

VOXEL_SIZE_TOLERANCE = 0.01
"""Of the voxel size of data against that of the setup: such a difference changes no picture."""
SAME_VOXEL_SIZE = 1e-4
"""Of raw against its labels: half a voxel after 5,000."""


def check_voxel_size(path: str, found: Nm3, voxel_size: Sequence[float]) -> None:
    """Raise `GeometryError` unless the voxels `found` at `path` are as large as the setup's."""
    if np.allclose(found, voxel_size, rtol=VOXEL_SIZE_TOLERANCE, atol=0):
        return
    raise GeometryError(
        f"{path} has voxel size {found}, the setup (without one, the first data set) is made for "
        f"{tuple(voxel_size)} nm (zyx); up to 1 % of difference is allowed. A network only works at the "
        "resolution it was trained for: use data of one resolution (`em-blocks downsample` makes "
        "coarser ones), set `voxel_size` of the setup to that of the data, or correct the attribute "
        "`voxel_size` of the array if that is wrong."
    )


def check_stated_size(raw: StoredVoxels, stated: Nm3 | None) -> None:
    """Raise `GeometryError` if the voxels of raw are not as large as its source states."""
    found = raw.frame.voxel_size
    if stated is not None and not np.allclose(found, stated, rtol=SAME_VOXEL_SIZE, atol=0):
        raise GeometryError(
            f"{raw.path} has voxel size {found}, but its source states {stated} nm (zyx). With the "
            "wrong one, regions and labels would lie elsewhere. Correct `voxel_size` of the source, or "
            "the attribute of the array."
        )


def placement(raw: StoredVoxels, other: StoredVoxels) -> Placement:
    """Find where the voxels of raw lie in `other` (labels or a mask).

    Raises
    ------
    GeometryError
        If voxels of one are no whole multiple of those of the other, or do not lie on one grid.
    """
    size, found = np.array(raw.frame.voxel_size), np.array(other.frame.voxel_size)
    coarser, finer = (np.maximum(1, np.rint(ratio)) for ratio in (found / size, size / found))
    if np.abs(found / coarser * finer / size - 1).max() > SAME_VOXEL_SIZE:
        raise GeometryError(
            f"{raw.path} has voxel size {raw.frame.voxel_size} and {other.path}, which is trained with "
            f"it, has {other.frame.voxel_size} nm (zyx). A training pairs them voxel by voxel, so they "
            "would drift apart; only whole ratios can be paired (labels twice as coarse or as fine, "
            "for example). Correct the attribute `voxel_size` that is wrong, or resample one of "
            "them."
        )
    apart = np.subtract(raw.frame.offset, other.frame.offset) / size * finer
    whole = np.rint(apart)
    if np.abs(apart - whole).max() > TOLERANCE_VOXELS:
        further = tuple((np.round(-apart, 3) + 0.0).tolist())  # no -0.0
        raise GeometryError(
            f"{raw.path} has offset {raw.frame.offset} and {other.path}, which is trained with it, has "
            f"{other.frame.offset} nm (zyx): with voxels of {tuple((size / finer).tolist())} nm they "
            f"lie {further} voxels apart, which is no whole number. A training "
            "pairs them voxel by voxel, so it would learn from labels that lie elsewhere. Correct the "
            "`offset` that is wrong (in the attributes, or in the config beside `path`), or resample "
            "one of them."
        )
    return Placement(*(triple(map(int, values)) for values in (whole, coarser, finer)))


def used_boxes(
    source: DataSource, name: str, frame: Frame, shape: Triple, common: Box
) -> list[Box]:
    """Find the boxes of raw's voxels that are used: of every ROI the part that all volumes have.

    Parameters
    ----------
    frame : Frame
        Of raw.
    shape : (3,) int
        Of raw, voxels (z, y, x).
    common : Box
        Voxels that raw, labels and masks all have.

    Raises
    ------
    GeometryError
        If a box is not inside raw, holds nothing of the labels or a mask, or is a stated region with
        classes that are not stored everywhere in it.
    """
    whole = Box((0, 0, 0), shape)
    if source.rois is None:
        wanted = [Box.between(source.begin, source.end or shape)]
    else:
        wanted = [frame.to_box(Roi(roi.offset, roi.shape)) for roi in source.rois]
    for box in wanted:
        if not box.size or not whole.contains(box):
            raise GeometryError(
                f"{name}: the box from {box.offset} to {box.end} (voxels, zyx) is empty or not inside "
                f"the volume of {shape}. Correct `begin` and `end`, or `rois`."
            )
        if not box.intersect(common).size:
            raise GeometryError(
                f"{name}: no voxel of the box from {box.offset} to {box.end} has labels: raw, labels "
                f"and masks together cover {common.offset} to {common.end} (voxels of raw, zyx; raw "
                f"begins at {frame.offset} nm). Correct the `offset` that is wrong, or choose a region "
                "that all of them cover."
            )
        if source.has_classes and source.rois is not None and not common.contains(box):
            raise GeometryError(
                f"{name}: the region from {box.offset} to {box.end} is not wholly covered by raw, "
                f"classes and masks, which together have the voxels {common.offset} to {common.end} "
                "(voxels of raw, zyx). All of a region is trained and measured on, so nothing would be "
                "known in a part of it. Correct the region, or the `offset` of the "
                "volume that is elsewhere."
            )
    return [box.intersect(common) for box in wanted]
