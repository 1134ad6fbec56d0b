"""From a landscape to instances, in one piece: what the blocks of `em-blocks segment-instances` make."""

from __future__ import annotations

import fastremap
import numpy as np

from em_blocks.kernels.components.block_components import Connectivity, find_parts
from em_blocks.kernels.instances.flood import flood
from em_blocks.kernels.instances.landscape import SEED
from em_blocks.kernels.instances.seeds import decide, labelled

FACES: Connectivity = 6
"""Neighbours of a voxel, in components, seeds and floods alike."""


def instances(landscape: np.ndarray, *, min_seed_size: int, min_size: int) -> np.ndarray:
    """Return the instances of a landscape.

    Parameters
    ----------
    landscape : (z, y, x) uint8 array
        As from `em_blocks.kernels.instances.landscape`.
    min_seed_size, min_size : int
        Voxels that a seed and an instance have at least.

    Returns
    -------
    (z, y, x) uint64 array
        1, 2, ... in the order of first voxels; 0 is background.
    """
    found = flood(landscape, first_labels(landscape, min_seed_size=min_seed_size, min_size=min_size))
    return numbered(found, min_size)


def first_labels(landscape: np.ndarray, *, min_seed_size: int, min_size: int) -> np.ndarray:
    """Return the labels (z, y, x), int64, that a flood of the landscape begins with."""
    components = find_parts((landscape > 0).view(np.uint8), FACES)
    seeds = find_parts((landscape == SEED).view(np.uint8), FACES)
    decided = decide(
        components.sizes, seeds.sizes, seeds.first, components.numbers.ravel()[seeds.first] - 1,
        min_seed_size=min_seed_size, min_size=min_size,
    )
    return labelled(
        components.numbers, seeds.numbers, np.append(0, decided.components), np.append(0, decided.seeds)
    )


def numbered(labels: np.ndarray, min_size: int) -> np.ndarray:
    """Return labels as 1, 2, ... in the order of first voxels, without those that are too small.

    Parameters
    ----------
    labels : (z, y, x) int64 array

    Returns
    -------
    (z, y, x) uint64 array
    """
    ids, first, dense, sizes = fastremap.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    kept = np.flatnonzero((ids > 0) & (sizes >= min_size))
    kept = kept[np.argsort(first[kept])]
    numbers = np.zeros(len(ids), np.uint64)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return numbers[dense].reshape(labels.shape)
