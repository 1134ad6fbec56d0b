"""Which seeds there are, and which components have to be flooded from several of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from em_blocks.kernels.instances.flood import UNDECIDED


class Decided(NamedTuple):
    """Labels of components and seeds.

    Attributes
    ----------
    components : (n,) int64 array
        Label of all voxels of a component with one seed; 0 of one without, or that is too small;
        `UNDECIDED` of one with several seeds.
    seeds : (m,) int64 array
        Labels 1, 2, ... in the order of first voxels; `UNDECIDED` of those that do not count.
    """

    components: np.ndarray
    seeds: np.ndarray


def decide(
    component_sizes: np.ndarray, seed_sizes: np.ndarray, seed_first: np.ndarray,
    component_of_seed: np.ndarray, *, min_seed_size: int, min_size: int,
) -> Decided:
    """Label the components of the mask by the seeds in them.

    Parameters
    ----------
    component_sizes : (n,) int64 array
        Voxels of the components.
    seed_sizes, seed_first : (m,) int64 arrays
        Voxels of the seeds, and the index of their first voxel in the flat volume.
    component_of_seed : (m,) int array
        The component 0 .. n - 1 that each seed lies in.
    min_seed_size, min_size : int
        Voxels that a seed and an object have at least.
    """
    counts = (seed_sizes >= min_seed_size) & (component_sizes[component_of_seed] >= min_size)
    kept = np.flatnonzero(counts)
    kept = kept[np.argsort(seed_first[kept])]
    seeds = np.full(len(seed_sizes), UNDECIDED, np.int64)
    seeds[kept] = np.arange(1, len(kept) + 1)
    components = np.zeros(len(component_sizes), np.int64)
    components[component_of_seed[kept]] = seeds[kept]
    several = np.bincount(component_of_seed[kept], minlength=len(components)) > 1
    components[several] = UNDECIDED
    return Decided(components, seeds)


def labelled(
    components: np.ndarray, seeds: np.ndarray | None, component_labels: np.ndarray,
    seed_labels: np.ndarray,
) -> np.ndarray:
    """Return the labels that a flood begins with.

    Parameters
    ----------
    components, seeds : (z, y, x) integer arrays
        Numbers 1, 2, ... of components and seeds; 0 elsewhere. None where no seed has a label.
    component_labels, seed_labels : int64 arrays
        Of the numbers 0, 1, 2, ...: 0, then as in `Decided`.

    Returns
    -------
    (z, y, x) uint32 array

    Raises
    ------
    OverflowError
        If a label is too large.
    """
    for labels in (component_labels, seed_labels):
        if labels.max() > UNDECIDED:
            raise OverflowError(f"there are labels up to {labels.max()}, above {UNDECIDED - 1}")
    found = np.empty(components.shape, np.uint32)
    _fill(
        found.ravel(), components.ravel(), (components if seeds is None else seeds).ravel(),
        component_labels.astype(np.uint32), seed_labels.astype(np.uint32),
    )
    return found


@njit(cache=True, nogil=True)
def _fill(found, components, seeds, component_labels, seed_labels):
    has_seeds = len(seed_labels) > 1
    for i in range(len(found)):
        label = component_labels[components[i]]
        if label == UNDECIDED and has_seeds and seeds[i] > 0:
            label = seed_labels[seeds[i]]
        found[i] = label
