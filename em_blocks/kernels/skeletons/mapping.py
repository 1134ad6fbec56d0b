"""Which skeleton a synaptic site belongs to: the nearest one in the same segment."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from em_blocks.kernels.synapses.table import BACKGROUND, TOO_FAR, UNMAPPED


class Nodes(NamedTuple):
    """Points of skeletons, with the segment at each."""

    positions: np.ndarray  # (n, 3) float64, nm (z, y, x)
    skeleton: np.ndarray  # (n,) int64
    segment: np.ndarray  # (n,) int64
    anchor: np.ndarray  # (n,) bool: an end of a true synapse, which is never noise

    def select(self, rows: np.ndarray) -> Nodes:
        """The nodes of a mask or of indices."""
        return Nodes(*(column[rows] for column in self))


def without_noise(nodes: Nodes, *, noise_nodes: int = 0) -> Nodes:
    """Nodes that may claim sites, sorted by segment.

    A node on background, or outside of the labels, claims nothing. A skeleton that has only few
    nodes in a segment grazes it by a small error of tracing or segmentation, so these are left out,
    unless one of them is an anchor.

    Parameters
    ----------
    noise_nodes : int
        A skeleton with 1 to this many nodes in a segment, anchors not counted, does not claim it.
    """
    nodes = nodes.select(nodes.segment > BACKGROUND)
    nodes = nodes.select(np.lexsort((nodes.skeleton, nodes.segment)))
    if not len(nodes.segment):
        return nodes
    pair = np.stack([nodes.segment, nodes.skeleton], axis=1)
    new = (pair[1:] != pair[:-1]).any(axis=1)
    group = np.concatenate([[0], np.cumsum(new)])
    n = np.bincount(group, ~nodes.anchor)
    anchored = np.bincount(group, nodes.anchor) > 0
    return nodes.select(((n > noise_nodes) | anchored)[group])


class SkeletonIndex:
    """Finds the skeletons of sites.

    Parameters
    ----------
    nodes : Nodes
        As from `without_noise`: sorted by segment. Some 50 bytes each.
    max_distance_nm : float
        A site whose nearest candidate is farther away than this is `TOO_FAR`.
    """

    def __init__(self, nodes: Nodes, *, max_distance_nm: float = np.inf):
        self._nodes, self._bound = nodes, max_distance_nm
        self._trees: dict[int, cKDTree] = {}

    def skeletons_at(self, positions: np.ndarray, segments: np.ndarray) -> np.ndarray:
        """The skeleton of every site.

        Candidates are the skeletons with a node in the segment of the site. The one with the
        nearest node is taken, of equally near ones the smallest id.

        Parameters
        ----------
        positions : (n, 3) float array
            nm (z, y, x).
        segments : (n,) int64 array

        Returns
        -------
        (n,) int64 array
            `UNMAPPED` where there is no candidate.
        """
        positions = np.asarray(positions, np.float64).reshape(-1, 3)
        found = np.full(len(positions), UNMAPPED, np.int64)
        order = np.argsort(segments, kind="stable")
        ids, begins = np.unique(segments[order], return_index=True)
        lows = np.searchsorted(self._nodes.segment, ids)
        highs = np.searchsorted(self._nodes.segment, ids, side="right")
        for rows, low, high in zip(np.split(order, begins[1:]), lows, highs):
            if low < high:
                found[rows] = self._nearest(positions[rows], slice(low, high))
        return found

    def _nearest(self, positions: np.ndarray, candidates: slice) -> np.ndarray:
        """The skeleton of the nearest of some nodes, for every position."""
        nodes, skeleton = self._nodes.positions[candidates], self._nodes.skeleton[candidates]
        tree = self._tree(candidates.start, nodes)
        distance, nearest = tree.query(positions, k=[1, 2])  # beyond the last node: infinitely far
        found = skeleton[nearest[:, 0]]
        for row in np.flatnonzero(distance[:, 0] == distance[:, 1]):
            squared = ((nodes - positions[row]) ** 2).sum(axis=1)
            found[row] = skeleton[squared == squared.min()].min()
        found[distance[:, 0] > self._bound] = TOO_FAR
        return found

    def _tree(self, begin: int, nodes: np.ndarray) -> cKDTree:
        # Large neurons have sites in every block: their tree is made once.
        if begin not in self._trees:
            self._trees[begin] = cKDTree(nodes)
        return self._trees[begin]
