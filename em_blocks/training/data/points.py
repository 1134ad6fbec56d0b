"""Synaptic partners in gunpowder graphs: an edge from every presynaptic to its postsynaptic site.

gunpowder keeps the other end of an edge that leaves a region, so a partner is known however far it
lies from the sample.
"""

from __future__ import annotations

from typing import NamedTuple

import gunpowder as gp
import numpy as np

from em_blocks.kernels.synapses.table import Synapses
from em_blocks.training.data.units import UNITS_PER_NM


class Sites(NamedTuple):
    """Both ends of n pairs, nm (z, y, x)."""

    pre: np.ndarray  # (n, 3)
    post: np.ndarray  # (n, 3)


class SynapseSource(gp.BatchProvider):
    """Provide the pairs of which one site lies in the requested region.

    Parameters
    ----------
    key : gunpowder.GraphKey
    synapses : Synapses
        nm from the origin of the graph's world.
    roi : gunpowder.Roi
        The region that can be asked for.
    annotated : gunpowder.Roi
        The region that is annotated: pairs beyond it do not count.
    """

    def __init__(
        self, key: gp.GraphKey, synapses: Synapses, roi: gp.Roi, annotated: gp.Roi
    ):
        self.key, self.roi, self.annotated = key, roi, annotated
        self.pre, self.post = synapses.pre * UNITS_PER_NM, synapses.post * UNITS_PER_NM

    def setup(self):
        self.provides(self.key, gp.GraphSpec(roi=self.roi, directed=True, dtype=np.float64))

    def provide(self, request):
        spec = self.spec[self.key].copy()
        spec.roi = request[self.key].roi
        there = spec.roi.intersect(self.annotated)
        rows = np.flatnonzero(inside(self.pre, there) | inside(self.post, there))
        nodes = [
            gp.Node(2 * row + end, points[row].copy())
            for row in rows.tolist()
            for end, points in enumerate((self.pre, self.post))
        ]
        edges = [gp.Edge(2 * row, 2 * row + 1) for row in rows.tolist()]
        batch = gp.Batch()
        batch[self.key] = gp.Graph(nodes, edges, spec)
        return batch


def sites_of(graph: gp.Graph) -> Sites:
    """Return both sites of every pair, in the order of their ids."""
    located = {node.id: node.location for node in graph.nodes}
    pairs = sorted((edge.u, edge.v) for edge in graph.edges)
    ends = np.array([[located[u], located[v]] for u, v in pairs], float).reshape(-1, 2, 3)
    return Sites(ends[:, 0] / UNITS_PER_NM, ends[:, 1] / UNITS_PER_NM)


def count_inside(graph: gp.Graph, roi: gp.Roi) -> int:
    """Count the postsynaptic sites in a region."""
    return int(np.count_nonzero(inside(sites_of(graph).post * UNITS_PER_NM, roi)))


def offset_nm(roi: gp.Roi) -> np.ndarray:
    """Compute the first corner of a region, nm (z, y, x)."""
    return np.array(roi.offset, float) / UNITS_PER_NM


def inside(points: np.ndarray, roi: gp.Roi) -> np.ndarray:
    """Tell which points (n, 3), in world units, lie in a region."""
    return np.all((points >= np.array(roi.begin)) & (points < np.array(roi.end)), axis=1)
