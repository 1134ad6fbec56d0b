"""Which seeds there are, and which components have to be flooded from several of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from em_blocks.geometry import Triple
from em_blocks.kernels.components.runs import Runs, paint_runs
from em_blocks.kernels.instances.flood import UNDECIDED


class Nested(NamedTuple):
    """Seeds, or their cores.

    Attributes
    ----------
    sizes, first : (m,) int64 arrays
        Voxels, and the index of the first one in the flat volume.
    within : (m,) int array
        Number 0, 1, ... of the component that a seed lies in; of the seed, for a core.
    """

    sizes: np.ndarray
    first: np.ndarray
    within: np.ndarray


NO_CORES = Nested(*(np.zeros(0, np.int64) for _ in range(3)))


class Decided(NamedTuple):
    """Labels of components, seeds and cores.

    Attributes
    ----------
    components : (n,) int64 array
        Label of all voxels of a component with one seed; 0 of one without, or that is too small;
        `UNDECIDED` of one with several seeds.
    seeds, cores : (m,) int64 arrays
        Labels 1, 2, ... in the order of first voxels; `UNDECIDED` of those that do not count.
    """

    components: np.ndarray
    seeds: np.ndarray
    cores: np.ndarray


def decide(
    component_sizes: np.ndarray, seeds: Nested, cores: Nested = NO_CORES, *, min_seed_size: int,
    min_size: int,
) -> Decided:
    """Label the components of the mask by the seeds in them.

    A seed with several cores is replaced by these. A core is as large as a seed at least.

    Parameters
    ----------
    component_sizes : (n,) int64 array
        Voxels of the components.
    seeds, cores : Nested
    min_seed_size, min_size : int
        Voxels that a seed and an object have at least.
    """
    n_seeds = len(seeds.sizes)
    is_seed = (seeds.sizes >= min_seed_size) & (component_sizes[seeds.within] >= min_size)
    is_core = (cores.sizes >= min_seed_size) & is_seed[cores.within]
    is_split = np.bincount(cores.within[is_core], minlength=n_seeds) > 1
    # From here on, seeds and cores are of one list.
    kept = np.flatnonzero(np.append(is_seed & ~is_split, is_core & is_split[cores.within]))
    kept = kept[np.argsort(np.append(seeds.first, cores.first)[kept])]
    labels = np.full(n_seeds + len(cores.sizes), UNDECIDED, np.int64)
    labels[kept] = np.arange(1, len(kept) + 1)
    within = np.append(seeds.within, seeds.within[cores.within])[kept]
    components = np.zeros(len(component_sizes), np.int64)
    components[within] = labels[kept]
    components[np.bincount(within, minlength=len(components)) > 1] = UNDECIDED
    return Decided(components, labels[:n_seeds], labels[n_seeds:])


def labelled(shape: Triple, levels: Sequence[tuple[Runs, np.ndarray]]) -> np.ndarray:
    """Return the labels that a flood begins with.

    Parameters
    ----------
    shape : (3,) int
        Voxels (z, y, x).
    levels : sequence of pairs
        For components, then for seeds and cores if any of them have labels: their runs, and the label
        of every run, int64, as in `Decided`. What is `UNDECIDED` as a component gets the label of its
        seed or core.

    Returns
    -------
    (z, y, x) uint32 array

    Raises
    ------
    OverflowError
        If a label is too large.
    """
    found = np.zeros(shape, np.uint32)
    flat = found.ravel()
    for level, (runs, labels) in enumerate(levels):
        if labels.max(initial=0) > UNDECIDED:
            raise OverflowError(f"there are labels up to {labels.max()}, above {UNDECIDED - 1}")
        # A run of seeds lies in one component, and one of cores in one seed.
        painted = labels != 0 if level == 0 else flat[runs.first] == UNDECIDED
        paint_runs(flat, runs.first[painted], runs.lengths[painted], labels[painted].astype(np.uint32))
    return found
