"""Which seeds there are, and which components have to be flooded from several of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
    seeds = np.full(len(seed_sizes), UNDECIDED)
    seeds[kept] = np.arange(1, len(kept) + 1)
    components = np.zeros(len(component_sizes), np.int64)
    components[component_of_seed[kept]] = seeds[kept]
    several = np.bincount(component_of_seed[kept], minlength=len(components)) > 1
    components[several] = UNDECIDED
    return Decided(components, seeds)


def labelled(
    components: np.ndarray, seeds: np.ndarray, component_labels: np.ndarray, seed_labels: np.ndarray
) -> np.ndarray:
    """Return the labels that a flood begins with.

    Parameters
    ----------
    components, seeds : (z, y, x) integer arrays
        Numbers 1, 2, ... of components and seeds; 0 elsewhere.
    component_labels, seed_labels : int64 arrays
        Of the numbers 0, 1, 2, ...: 0, then as in `Decided`.

    Returns
    -------
    (z, y, x) int64 array
    """
    found = component_labels[components]
    if (component_labels == UNDECIDED).any():
        places = np.nonzero((found == UNDECIDED) & (seeds > 0))
        found[places] = seed_labels[seeds[places]]
    return found
