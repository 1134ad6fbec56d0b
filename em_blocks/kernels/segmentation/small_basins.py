"""Join small basins of a watershed by what their whole contact says."""

from __future__ import annotations

import numpy as np

from em_blocks.kernels.segmentation.agglomerate import Graph, LargeRule, agglomerate
from em_blocks.kernels.segmentation.merge_tree import cut
from em_blocks.kernels.segmentation.neighborhood import FULL, Neighborhood
from em_blocks.kernels.segmentation.region_graph import contact_histograms, region_graph

_BINS = 32


def join_small_basins(
    basins: np.ndarray, affinities: np.ndarray, neighborhood: Neighborhood, *, small: int,
    quantile: float, low: float, dimensions: int = 3,
) -> np.ndarray:
    """Basins of fewer than `small` voxels become part of the neighbour they belong to most.

    Joining over the strongest single edge lets one wrong voxel of a membrane decide; here the
    `quantile` of the affinities over the contact does, again after every join.

    Parameters
    ----------
    basins : (z, y, x) int32 array
        Dense ids, 0 is none.
    affinities : (c, z, y, x) uint16 array
        As from `em_blocks.kernels.segmentation.neighborhood.to_previous`.
    small : int
        Voxels from which on two basins are not joined.
    quantile : float
        0..1.
    low : float
        Basins whose contact has a lower quantile are not joined.
    dimensions : int
        3, or 2 for basins that stay in their section.

    Returns
    -------
    (z, y, x) int32 array
        1, 2, ... in the order of ids; 0 where there was none.
    """
    size = np.bincount(basins.ravel())
    n = len(size)
    graph = region_graph(
        basins, affinities, neighborhood, begin=(0, 0, 0), complete=np.ones(n, bool)
    )
    histogram = contact_histograms(basins, affinities, neighborhood, graph, begin=(0, 0, 0), bins=_BINS)
    taken = graph.contact[:, 3 - dimensions :].sum(axis=1) > 0
    edges = np.arange(np.count_nonzero(taken))
    merges, _ = agglomerate(
        n, Graph(graph.u[taken], graph.v[taken], edges, np.full(len(edges), FULL), edges,
                 histogram[taken]),
        # No contact is sure enough for two that are both large.
        lowest=low, quantile=quantile, large=LargeRule(size.astype(np.int64), max(1, small), 2.0),
    )
    joined = cut(n, merges.a, merges.b, np.ones(len(merges.a), bool))
    _, dense = np.unique(joined[1:], return_inverse=True)
    return np.concatenate(([0], dense + 1)).astype(np.int32)[basins]
