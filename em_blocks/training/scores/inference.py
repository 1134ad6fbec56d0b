"""A validation box in one go: its prediction and its truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from em_blocks.geometry import Nm3
from em_blocks.models.config import SetupConfig
from em_blocks.models.truth import POST, PRE, Truth
from em_blocks.nets.inference import HeadFormat, TilePredictor
from em_blocks.training.data.sources import TrainingData


def predict_box(
    network: nn.Module, data: TrainingData, config: SetupConfig
) -> dict[str, np.ndarray]:
    """Predict the used box of `data` as a predictor of whole volumes would.

    Context is read where the volume has it and mirrored where it ends.

    Returns
    -------
    dict of (c, z, y, x) float32 arrays
        Activated output of every head.
    """
    predictor = TilePredictor(
        network,
        heads=dict.fromkeys(config.heads, HeadFormat("float32")),
        tile_shape=config.tile_shape,
        scale=config.normalization.scale,
        shift=config.normalization.shift,
        precision=config.training.precision,
    )
    raw = _read_mirrored(data.raw, *predictor.input_box(data.begin, data.end))
    outputs, _ = predictor.predict(raw, data.begin, data.end)
    return outputs


def truth_of_box(data: TrainingData, voxel_size: Nm3) -> Truth:
    """Read the truth of the used box, nm from its first corner.

    Of the synapses it has those whose postsynaptic site lies in the box.
    """
    points = {}
    if (found := data.synapses) is not None:
        begin, end = (np.array(corner) * voxel_size for corner in (data.begin, data.end))
        inside = np.all((found.post >= begin) & (found.post < end), axis=1)
        points = {PRE: found.pre[inside] - begin, POST: found.post[inside] - begin}
    labels, masks = (
        {name: volume[data.box] for name, volume in volumes.items()}
        for volumes in (data.labels, data.masks)
    )
    return Truth(voxel_size, labels, masks, points)


def _read_mirrored(volume, begin: Sequence[int], end: Sequence[int]) -> np.ndarray:
    """Voxels from `begin` to `end` of a (z, y, x) volume, mirrored where it ends."""
    size = volume.shape
    inside = tuple(slice(max(0, b), min(e, s)) for b, e, s in zip(begin, end, size, strict=True))
    missing = [(max(0, -b), max(0, e - s)) for b, e, s in zip(begin, end, size, strict=True)]
    return np.pad(np.asarray(volume[inside]), missing, mode="reflect")
