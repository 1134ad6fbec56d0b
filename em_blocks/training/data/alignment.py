"""Pair raw, labels and masks of a source by their place in nm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from em_blocks.errors import GeometryError
from em_blocks.geometry import TOLERANCE_VOXELS, Box, Frame, Nm3, Roi, Triple
from em_blocks.models.sources import DataSource
from em_blocks.training.data.voxels import StoredVoxels

VOXEL_SIZE_TOLERANCE = 0.01
"""Of the voxel size of data against that of the setup: such a difference changes no picture."""
SAME_VOXEL_SIZE = 1e-4
"""Of raw against its labels: half a voxel after 5,000."""


def check_voxel_size(path: str, found: Nm3, voxel_size: Sequence[float]) -> None:
    """Raise `GeometryError` unless the voxels `found` at `path` are as large as the setup's."""
    if np.allclose(found, voxel_size, rtol=VOXEL_SIZE_TOLERANCE, atol=0):
        return
    raise GeometryError(
        f"{path} has voxel size {found}, the setup is made for {tuple(voxel_size)} nm "
        "(zyx); up to 1 % of difference is allowed. A network only works at the resolution it "
        "was trained for: use data of the setup's resolution (`em-blocks downsample` makes "
        "coarser ones), set `voxel_size` of the setup to that of the data, or correct the "
        "attribute `voxel_size` of the array if that is wrong."
    )


def first_voxel(raw: StoredVoxels, other: StoredVoxels) -> Triple:
    """Find the voxel of `other` (labels or a mask) that lies where the first one of raw does.

    Raises
    ------
    GeometryError
        If voxels have two sizes, or do not lie on one grid.
    """
    size = np.array(raw.frame.voxel_size)
    drift = np.subtract(other.frame.voxel_size, size) / size
    if np.abs(drift).max() > SAME_VOXEL_SIZE:
        raise GeometryError(
            f"{raw.path} has voxel size {raw.frame.voxel_size} and {other.path}, which is trained with "
            f"it, has {other.frame.voxel_size} nm (zyx). A training pairs them voxel by voxel, so they "
            "would drift apart. Correct the attribute `voxel_size` that is wrong, or resample one of "
            "them."
        )
    apart = np.subtract(raw.frame.offset, other.frame.offset) / size
    whole = np.rint(apart)
    if np.abs(apart - whole).max() > TOLERANCE_VOXELS:
        further = tuple((np.round(-apart, 3) + 0.0).tolist())  # no -0.0
        raise GeometryError(
            f"{raw.path} has offset {raw.frame.offset} and {other.path}, which is trained with it, has "
            f"{other.frame.offset} nm (zyx): with voxels of {raw.frame.voxel_size} nm they lie "
            f"{further} voxels apart, which is no whole number. A training "
            "pairs them voxel by voxel, so it would learn from labels that lie elsewhere. Correct the "
            "`offset` that is wrong (in the attributes, or in the config beside `path`), or resample "
            "one of them."
        )
    return tuple(int(n) for n in whole)


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
        If a box is not inside raw, or holds nothing of the labels or a mask.
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
    return [box.intersect(common) for box in wanted]
