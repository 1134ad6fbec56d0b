"""Fill the holes of objects in one piece: what blocks do by the tables of `gaps`."""

from __future__ import annotations

import numpy as np

from em_blocks.geometry import Box, triple
from em_blocks.kernels.components.block_components import find_parts
from em_blocks.kernels.components.gaps import touched_by


def fill_holes(labels: np.ndarray, max_hole: int | None = None) -> np.ndarray:
    """Return a whole volume with the holes of its objects filled.

    A hole is background that is connected by faces, and touches one object only and no border.

    Parameters
    ----------
    labels : (z, y, x) unsigned integer array
        Ids below 2**63; 0 is background.
    max_hole : int, optional
        Voxels that a hole has at most.
    """
    shape = triple(labels.shape)
    gaps = find_parts((labels == 0).view(np.uint8), 6)
    touched = touched_by(
        gaps.numbers, np.pad(labels, 1), n_parts=len(gaps.ids), box=Box((0, 0, 0), shape), shape=shape
    )
    is_hole = ~touched.outside & (touched.low == touched.high)
    if max_hole is not None:
        is_hole &= gaps.sizes <= max_hole
    if not is_hole.any():
        return labels
    fill = np.append(0, np.where(is_hole, touched.low, 0)).astype(labels.dtype)
    return np.where(labels == 0, fill[gaps.numbers], labels)
