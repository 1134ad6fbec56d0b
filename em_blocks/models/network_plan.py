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
cores, an iteration of a cube of 2**16 voxels takes two to three seconds with the smallest network."""
FEATURES = {"cpu": ((0.0, 12),), "cuda": ((0.0, 12), (12.0, 24), (40.0, 32))}
"""Channels of the finest level by device and GB of memory; each level has twice as many."""
DEEPEST_SAMPLE = 4
"""Sections of a sample if sections are thick: more of them are nearly unrelated."""
OF_TRAINING = 0.4
"""Memory of a prediction against that of training, which keeps all activations."""
BYTES_PER_ACTIVATION = 12
"""An estimate for training: the value, its gradient, and what a convolution needs at the same time."""
THICK = 2
"""Sections are thick if they are more than this many pixels thick."""
FLAT_FEATURES, FLAT_KERNEL, FLAT_POOLING, FLAT_SIDE = (8, 32, 64, 128), (1, 3, 3), (1, 2, 2), 256
"""The network of single sections: it learned mitochondria (50 x 9.2 x 9.2 nm) in an hour on two cores,
where kernels along z made an iteration three to four times as long."""


class NetworkPlan(NamedTuple):
    """A U-Net, and shapes that fit to it, voxels (z, y, x).

    Attributes
    ----------
    sample_bytes : float
        Estimated memory of training with one sample.
    multiplications : float
        Of all convolutions of one pass with one sample.
    """

    features: tuple[int, ...]
    kernels: tuple[tuple[Triple, ...], ...]
    pooling: tuple[Triple, ...]
    output_shape: Triple
    tile_shape: Triple
    context: Triple
    sample_bytes: float
    multiplications: float


def is_thick(voxel_size: Sequence[float]) -> bool:
    """Tell whether sections are so thick that neighbours are hardly related; nm (z, y, x)."""
    return voxel_size[0] > THICK * voxel_size[2]


def is_flat(voxel_size: Sequence[float], device: str) -> bool:
    """Tell whether the network sees single sections: thick ones, where only cores train."""
    return device == "cpu" and is_thick(voxel_size)


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
    features, kernels, pooling = _network(voxel_size, memory_gb, device)
    shapes = UNetShapes(kernels, pooling)
    output = _output(shapes, smallest_box, _wanted(voxel_size, smallest_box, device))
    while _bytes(shapes, features, output) > memory_gb * 1e9 / 2 and output != shapes.tile_factor:
        output = _smaller(shapes, output)
    double = triple((output[0], 2 * output[1], 2 * output[2]))
    fits = OF_TRAINING * _bytes(shapes, features, double) <= memory_gb * 1e9 / 2
    tile = double if fits else output
    return NetworkPlan(
        features, kernels, pooling, output, tile, shapes.context,
        _bytes(shapes, features, output), _multiplications(shapes, features, output),
    )


Kernels = tuple[tuple[Triple, ...], ...]
Pooling = tuple[Triple, ...]


def _network(
    voxel_size: Sequence[float], memory_gb: float, device: str
) -> tuple[tuple[int, ...], Kernels, Pooling]:
    """Return channels, kernels and poolings of the levels, finest first."""
    if is_flat(voxel_size, device):
        levels = len(FLAT_FEATURES)
        return FLAT_FEATURES, ((FLAT_KERNEL,) * 2,) * levels, (FLAT_POOLING,) * (levels - 1)
    base = max(channels for least, channels in FEATURES[device] if memory_gb >= least)
    return tuple(base * 2**level for level in range(LEVELS)), *_levels(voxel_size)


def _levels(voxel_size: Sequence[float]) -> tuple[Kernels, Pooling]:
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


def _wanted(voxel_size: Sequence[float], box: Sequence[int], device: str) -> list[float]:
    """Voxels of a sample (z, y, x) in crops of `box`: cubic in nm, but thin if sections are thick."""
    if is_flat(voxel_size, device):
        return [1, FLAT_SIDE, FLAT_SIDE]
    target = SAMPLE_VOXELS[device]
    if not is_thick(voxel_size):
        return [target ** (1 / 3)] * 3
    depth = min(DEEPEST_SAMPLE, max(1, box[0] // 2))
    return [depth, *[(target / depth) ** 0.5] * 2]


def _output(shapes: UNetShapes, box: Sequence[int], wanted: Sequence[float]) -> Triple:
    """The output of a sample: nearly what is wanted, no larger than crops need."""
    return triple(
        max(f, min(round(n / f), -(-b // f)) * f)
        for n, f, b in zip(wanted, shapes.tile_factor, box, strict=True)
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


def _multiplications(
    shapes: UNetShapes, features: Sequence[int], output: Sequence[int]
) -> float:
    """Bound the multiplications of one pass with one sample: levels as large as they begin.

    Seconds follow this bound better than the exact number, which is smaller by 1.4 (flat) to 4
    (cubes), where much of the time goes into memory.
    """
    size, before, total = list(shapes.input_shape(output)), 1, 0.0
    for level, (channels, kernels) in enumerate(zip(features, shapes.kernels, strict=True)):
        up = [] if level == len(features) - 1 else kernels
        for way, ways in ((before, kernels), (2 * channels, up)):
            for entering, kernel in zip([way, *[channels] * len(ways)], ways, strict=False):
                total += entering * channels * math.prod(kernel) * math.prod(size)
        if up:
            size = [n / step for n, step in zip(size, shapes.pooling[level], strict=True)]
        before = channels
    return total
