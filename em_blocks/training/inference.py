"""One-process prediction of a box, for validation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from em_blocks.training.config import Normalization
from em_blocks.training.sources import TrainingData


def autocast(precision: str) -> torch.autocast:
    """Mixed precision of a training: "bf16", or "fp32" for none."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")


def predict_box(
    network: nn.Module,
    data: TrainingData,
    *,
    normalization: Normalization,
    tile_shape: Sequence[int],
    precision: str,
) -> dict[str, np.ndarray]:
    """Predict the used box of `data`, tile by tile.

    Context is read where the volume has it and mirrored where it ends.

    Returns
    -------
    dict of (c, z, y, x) float32 arrays
        Activated output of every head.
    """
    shape = [last - first for first, last in zip(data.begin, data.end)]
    tiles = [-(-size // tile) for size, tile in zip(shape, tile_shape)]
    raw = _read_with_context(data, network.context, [n * t for n, t in zip(tiles, tile_shape)])
    raw = torch.from_numpy(raw) * normalization.scale + normalization.shift
    outputs: dict[str, np.ndarray] = {}
    for index in itertools.product(*map(range, tiles)):
        begin = [i * tile for i, tile in zip(index, tile_shape)]
        seen = tuple(
            slice(b, b + t + 2 * c) for b, t, c in zip(begin, tile_shape, network.context)
        )
        with torch.inference_mode(), autocast(precision):
            tile = network.predict(_channels_last(raw[None, None, *seen]))
        for name, values in tile.items():
            if name not in outputs:
                outputs[name] = np.empty((values.shape[1], *shape), np.float32)
            _paste(outputs[name], values[0].float().numpy(), begin)
    return outputs


def _read_with_context(data: TrainingData, context, covered) -> np.ndarray:
    """float32 raw of the box grown by `context`, and to `covered` voxels at its end."""
    size = data.raw.shape
    begin = [first - side for first, side in zip(data.begin, context)]
    end = [first + n + side for first, n, side in zip(data.begin, covered, context)]
    inside = tuple(slice(max(0, b), min(e, s)) for b, e, s in zip(begin, end, size))
    missing = [(max(0, -b), max(0, e - s)) for b, e, s in zip(begin, end, size)]
    return np.pad(np.asarray(data.raw[inside], np.float32), missing, mode="reflect")


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(memory_format=torch.channels_last_3d)


def _paste(target: np.ndarray, tile: np.ndarray, begin: Sequence[int]) -> None:
    """Write a tile at `begin`; what sticks out of `target` is dropped."""
    kept = [min(b + t, size) - b for b, t, size in zip(begin, tile.shape[1:], target.shape[1:])]
    there = tuple(slice(b, b + n) for b, n in zip(begin, kept))
    target[:, *there] = tile[:, *(slice(0, n) for n in kept)]
