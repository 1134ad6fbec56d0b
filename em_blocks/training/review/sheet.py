"""The picture of a crop: sections of raw, with borders of its labels."""

from __future__ import annotations

import numpy as np

from em_blocks.kernels.plots.sections import grey_picture, outline_picture, panel
from em_blocks.models.truth import OBJECT, UNKNOWN
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.review.table import Crop

WIDTH = 420
"""Pixels of one picture; finer voxels are left out, or lines of one voxel would not be seen."""
OUTLINE = (255, 120, 0)


def contact_sheet(data: TrainingData, crop: Crop) -> np.ndarray:
    """Draw three sections of a used box: raw alone, and with the outlines of each label volume.

    Of a class its objects are outlined, and what is unknown is darker.

    Returns
    -------
    (height, width, 3) uint8 array
    """
    step = max(1, -(-max(crop.shape[1:]) // WIDTH))
    pictures = {}
    for z in (crop.begin[0] + depth for depth in _depths(crop.shape[0])):
        section = (slice(z, z + 1), *data.box[1:])
        grey = _grey(data.raw[section][0, ::step, ::step], crop)
        pictures[f"section {z}"] = grey_picture(grey)
        for name, voxels in data.labels.items():
            labels = voxels[section][0, ::step, ::step]
            pictures[f"section {z}: {name}"] = _outlined(grey, labels, name in data.classes)
    return panel(
        pictures, title=f"{crop.name} ({crop.key})", columns=1 + len(data.labels), width=WIDTH,
        pixel_nm=crop.voxel_size[2] * step,
    )


def _grey(raw: np.ndarray, crop: Crop) -> np.ndarray:
    low, high = crop.percentiles[1], crop.percentiles[99]
    return np.clip((raw.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)


def _outlined(grey: np.ndarray, labels: np.ndarray, is_class: bool) -> np.ndarray:
    grey = np.where(labels == UNKNOWN, 0.5 * grey, grey)
    if is_class:
        return outline_picture(grey, labels == OBJECT, colour=OUTLINE)
    return outline_picture(grey, labels)


def _depths(n: int) -> list[int]:
    return sorted({n // 4, n // 2, 3 * n // 4})
