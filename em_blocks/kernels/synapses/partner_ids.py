"""Objects at both sites of partners."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from em_blocks.kernels.synapses.table import UNMAPPED, Synapses
from em_blocks.kernels.transforms.positions import as_voxels


def ids_of_partners(
    labels: np.ndarray,
    synapses: Synapses,
    *,
    voxel_size: Sequence[float],
    offset: Sequence[float] = (0.0, 0.0, 0.0),
) -> np.ndarray:
    """Labels at the presynaptic and postsynaptic sites.

    Parameters
    ----------
    labels : (z, y, x) integer array
    synapses : Synapses
    voxel_size, offset : (3,) floats
        nm (z, y, x), of the labels.

    Returns
    -------
    (n, 2) int64 array
        `UNMAPPED` where the labels do not reach.
    """
    ids = np.full((len(synapses), 2), UNMAPPED, np.int64)
    for side, sites in enumerate((synapses.pre, synapses.post)):
        voxels = np.floor(as_voxels(sites, voxel_size=voxel_size, offset=offset)).astype(int)
        inside = ((voxels >= 0) & (voxels < labels.shape)).all(axis=1)
        ids[inside, side] = labels[tuple(voxels[inside].T)]
    return ids
