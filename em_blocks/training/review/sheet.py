"""The picture of a crop: sections of raw, with borders of its labels."""

from __future__ import annotations

import numpy as np

from em_blocks.kernels.plots.sections import grey_picture, outline_picture, panel
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.review.table import Crop

WIDTH, MOST_PIXELS = 420, 1024


def contact_sheet(data: TrainingData, crop: Crop) -> np.ndarray:
    """Draw three sections of a used box: raw alone, and with the outlines of each label volume.

    Unknown voxels of classes are darker.

    Returns
    -------
    (height, width, 3) uint8 array
    """
    low, high = crop.percentiles[1], crop.percentiles[99]
    step = max(1, -(-max(crop.shape[1:]) // MOST_PIXELS))
    pictures = {}
    for z in _depths(crop.shape[0]):
        section = (slice(crop.begin[0] + z, crop.begin[0] + z + 1), *data.box[1:])
        raw = data.raw[section][0, ::step, ::step].astype(np.float32)
        grey = np.clip((raw - low) / max(high - low, 1e-6), 0, 1)
        pictures[f"section {crop.begin[0] + z}"] = grey_picture(grey)
        for name, voxels in data.labels.items():
            labels = voxels[section][0, ::step, ::step]
            pictures[f"section {crop.begin[0] + z}: {name}"] = outline_picture(grey, labels)
    return panel(
        pictures, title=f"{crop.name} ({crop.key})", columns=1 + len(data.labels), width=WIDTH,
        pixel_nm=crop.voxel_size[2] * step,
    )


def _depths(n: int) -> list[int]:
    return sorted({n // 4, n // 2, 3 * n // 4})
