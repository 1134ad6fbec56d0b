"""From a landscape to instances, in one piece: what the blocks of `em-blocks segment-instances` make."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from em_blocks.geometry import triple
from em_blocks.kernels.components.block_components import Connectivity
from em_blocks.kernels.components.runs import connect_runs, containing, find_runs, replaced
from em_blocks.kernels.instances.flood import flood
from em_blocks.kernels.instances.landscape import SEED
from em_blocks.kernels.instances.numbers import numbers_of, sizes_of
from em_blocks.kernels.instances.seeds import Nested, decide, labelled

FACES: Connectivity = 6
"""Neighbours of a voxel, in components, seeds and floods alike."""


def instances(
    landscape: np.ndarray, *, min_seed_size: int, min_size: int, has_cores: bool = False
) -> np.ndarray:
    """Return the instances of a landscape.

    Parameters
    ----------
    landscape : (z, y, x) uint8 array
        As from `em_blocks.kernels.instances.landscape`.
    min_seed_size, min_size : int
        Voxels that a seed and an instance have at least.
    has_cores : bool
        Whether the landscape is one `with_cores`.

    Returns
    -------
    (z, y, x) uint64 array
        1, 2, ... in the order of first voxels; 0 is background.
    """
    labels = first_labels(
        landscape, min_seed_size=min_seed_size, min_size=min_size, has_cores=has_cores
    )
    flood(landscape, labels)
    return numbered(labels, min_size)


def first_labels(
    landscape: np.ndarray, *, min_seed_size: int, min_size: int, has_cores: bool = False
) -> np.ndarray:
    """Return the labels (z, y, x), uint32, that a flood of the landscape begins with."""
    runs = [find_runs(values) for values in nested(landscape, has_cores)]
    shape = triple(landscape.shape)
    found = [connect_runs(each, shape, by_corners=False) for each in runs]
    inner = [
        Nested(parts.sizes, parts.first, outer.numbers[containing(outer_runs, parts.first)] - 1)
        for (outer_runs, _), (outer, parts) in zip(pairwise(runs), pairwise(found), strict=True)
    ]
    decided = decide(found[0].sizes, *inner, min_seed_size=min_seed_size, min_size=min_size)
    return labelled(shape, [
        (each, labels[parts.numbers - 1])
        for each, parts, labels in zip(runs, found, decided, strict=False)
    ])


def nested(landscape: np.ndarray, has_cores: bool) -> list[np.ndarray]:
    """Return the mask, its seeds, and if there are any their cores: uint8 arrays of 0 and 1."""
    least = (1, SEED - 1, SEED) if has_cores else (1, SEED)
    return [(landscape >= value).view(np.uint8) for value in least]


def numbered(labels: np.ndarray, min_size: int) -> np.ndarray:
    """Return labels as 1, 2, ... in the order of first voxels, without those that are too small.

    Parameters
    ----------
    labels : (z, y, x) uint32 array

    Returns
    -------
    (z, y, x) uint64 array
    """
    sizes = sizes_of(labels)
    numbers = numbers_of(*sizes, min_size=min_size)
    ids, rows = np.unique(sizes.ids, return_index=True)
    return replaced(labels.ravel(), ids, numbers[rows])[0].reshape(labels.shape)
