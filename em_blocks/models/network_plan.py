"""Sizes of a U-Net and of its samples, worked out from voxel size, memory and crops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from em_blocks.geometry import Triple, triple
from em_blocks.nets.shapes import UNetShapes

LEVELS = 4
"""With three poolings the coarsest voxels of 5 nm data are 40 nm: a mitochondrion is 10 of them."""
SAMPLE_VOXELS = {"cpu": 2**16, "cuda": 2**18}
"""Output of a sample by device: more takes time from iterations, less spends it on context. On two
cores, an iteration of 2**16 voxels takes about a second with the smallest network."""
FEATURES = {"cpu": ((0.0, 12),), "cuda": ((0.0, 12), (12.0, 24), (40.0, 32))}
"""Channels of the finest level by device and GB of memory; each level has twice as many."""
DEEPEST_SAMPLE = 4
"""Sections of a sample if sections are thick: more of them are nearly unrelated."""
OF_TRAINING = 0.4
"""Memory of a prediction against that of training, which keeps all activations."""
BYTES_PER_ACTIVATION = 12
"""An estimate for training: the value, its gradient, and what a convolution needs at the same time."""


class NetworkPlan(NamedTuple):
    """A U-Net, and shapes that fit to it, voxels (z, y, x).

    Attributes
    ----------
    sample_bytes : float
        Estimated memory of training with one sample.
    """

    features: tuple[int, ...]
    kernels: tuple[tuple[Triple, ...], ...]
    pooling: tuple[Triple, ...]
    output_shape: Triple
    tile_shape: Triple
    context: Triple
    sample_bytes: float


def plan_network(
    voxel_size: Sequence[float], smallest_box: Sequence[int], *, memory_gb: float, device: str
) -> NetworkPlan:
    """Work out a network and its samples.

    Parameters
    ----------
    voxel_size : (3,) floats
        nm (z, y, x).
    smallest_box : (3,) ints
        The smallest of the crops along every axis, voxels.
    memory_gb : float
        Of the device that trains.
    device : {"cpu", "cuda"}
    """
    base = max(channels for least, channels in FEATURES[device] if memory_gb >= least)
    features = tuple(base * 2**level for level in range(LEVELS))
    kernels, pooling = _levels(voxel_size)
    shapes = UNetShapes(kernels, pooling)
    output = _output(shapes, smallest_box, SAMPLE_VOXELS[device], voxel_size)
    while _bytes(shapes, features, output) > memory_gb * 1e9 / 2 and output != shapes.tile_factor:
        output = _smaller(shapes, output)
    double = triple((output[0], 2 * output[1], 2 * output[2]))
    fits = OF_TRAINING * _bytes(shapes, features, double) <= memory_gb * 1e9 / 2
    tile = double if fits else output
    return NetworkPlan(
        features, kernels, pooling, output, tile, shapes.context,
        _bytes(shapes, features, output),
    )


def _levels(
    voxel_size: Sequence[float],
) -> tuple[tuple[tuple[Triple, ...], ...], tuple[Triple, ...]]:
    """Kernels and poolings with which voxels become as long as wide before axes are treated alike."""
    size, kernels, pooling = list(voxel_size), [], []
    for level in range(LEVELS):
        finest = min(size)
        near = triple(3 if length <= 2 * finest else 1 for length in size)
        alike = triple(3 if length <= 1.34 * finest else 1 for length in size)
        kernels.append((near, alike))
        if level < LEVELS - 1:
            pool = triple(2 if length < 2 * finest else 1 for length in size)
            pooling.append(pool)
            size = [length * step for length, step in zip(size, pool, strict=True)]
    return tuple(kernels), tuple(pooling)


def _output(
    shapes: UNetShapes, box: Sequence[int], target: float, voxel_size: Sequence[float]
) -> Triple:
    """The output of a sample: cubic in nm, thin where sections are thick; no larger than crops."""
    factor = shapes.tile_factor
    thick = voxel_size[0] > 2 * voxel_size[2]
    depth = min(DEEPEST_SAMPLE, max(1, box[0] // 2)) if thick else None
    side = (target / depth) ** 0.5 if depth else target ** (1 / 3)
    wanted = [depth or side, side, side]
    return triple(
        max(f, min(round(n / f), -(-b // f)) * f)
        for n, f, b in zip(wanted, factor, box, strict=True)
    )


def _smaller(shapes: UNetShapes, output: Triple) -> Triple:
    """The output with its longest axis cut by one step."""
    steps = [n // f for n, f in zip(output, shapes.tile_factor, strict=True)]
    longest = max(range(3), key=lambda axis: (steps[axis] > 1, output[axis]))
    return triple(
        n - f if axis == longest else n
        for axis, (n, f) in enumerate(zip(output, shapes.tile_factor, strict=True))
    )


def _bytes(shapes: UNetShapes, features: Sequence[int], output: Sequence[int]) -> float:
    """Estimate the memory of training with one sample: activations of all convolutions."""
    size = list(shapes.input_shape(output))
    total, below = 0.0, [list(pool) for pool in shapes.pooling]
    for channels, kernels, pool in zip(
        features, shapes.kernels, [*below, [1, 1, 1]], strict=True
    ):
        for _ in kernels:  # the way down, and about as much on the way up
            total += 2 * channels * math.prod(size)
        size = [n / step for n, step in zip(size, pool, strict=True)]
    return BYTES_PER_ACTIVATION * total
