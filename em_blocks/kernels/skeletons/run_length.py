"""Skeletons of neurons, and how far one can follow them in a segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import networkx as nx
import numpy as np


class Skeletons(NamedTuple):
    """Many skeletons as columns."""

    positions: np.ndarray  # (n, 3) float64, nm (z, y, x)
    skeleton: np.ndarray  # (n,) int: which skeleton a node belongs to
    edges: np.ndarray  # (m, 2) int: rows of nodes
    n: int  # skeletons


class RunLength(NamedTuple):
    """How far one can follow skeletons without an error, nm; see `expected_run_length`."""

    expected_nm: float
    perfect_nm: float  # expected run length of a segmentation without errors
    total_nm: float  # all edges; the sum of the four below
    correct_nm: float
    split_nm: float
    merged_nm: float
    omitted_nm: float
    merging_segments: int  # segments that merge skeletons
    lengths_nm: np.ndarray  # (n skeletons,) length of each
    expected_each_nm: np.ndarray  # (n skeletons,) expected run length in each


def as_columns(graphs: Sequence[nx.Graph]) -> Skeletons:
    """Skeletons from graphs, one neuron each; nodes need a ``position``, nm (z, y, x)."""
    positions: list = []
    skeleton: list[int] = []
    edges: list[tuple[int, int]] = []
    for number, graph in enumerate(graphs):
        row = {node: len(positions) + n for n, node in enumerate(graph)}
        positions += [position for _, position in graph.nodes(data="position")]
        skeleton += [number] * len(row)
        edges += [(row[u], row[v]) for u, v in graph.edges]
    return Skeletons(
        np.array(positions, float).reshape(-1, 3),
        np.array(skeleton, np.int64),
        np.array(edges, np.int64).reshape(-1, 2),
        len(graphs),
    )


def expected_run_length(
    skeletons: Skeletons,
    segments: np.ndarray,
    *,
    inside: np.ndarray | None = None,
    background: int | None = 0,
) -> RunLength:
    """Compute the expected run length: from a random point of a random skeleton to the first error.

    An edge is, the first that applies:

    - omitted, if one of its nodes is in the background;
    - split, if its nodes are in different segments;
    - merged, if their segment holds a node of another skeleton too;
    - correct otherwise.

    The run of a skeleton in a segment is the length of all correct edges there, in one piece
    or not: it is one object that a user sees. Points of other edges have a run of 0. The
    expected run length is the mean run over the length of all skeletons: the sum of squared
    runs, divided by the total length.

    Parameters
    ----------
    segments : (n,) int array
        Segment at every node.
    inside : (n,) bool array, optional
        Nodes that lie in the segmentation. Edges that leave it are not counted at all.
    background : int or None
        Id of no object; None if every id is an object.

    References
    ----------
    Januszewski et al., doi:10.1038/s41592-018-0049-4. A skeleton here is a whole neuron, also
    if it comes in pieces, and only the merging segments lose their runs, not whole skeletons.
    """
    if inside is None:
        inside = np.ones(len(segments), bool)
    object_node = inside if background is None else inside & (segments != background)
    start, end = skeletons.edges[inside[skeletons.edges].all(axis=1)].T
    length = np.linalg.norm(skeletons.positions[start] - skeletons.positions[end], axis=1)
    merging = _merging(segments[object_node], skeletons.skeleton[object_node])
    found = object_node[start] & object_node[end]
    joined = found & (segments[start] == segments[end])
    merged = joined & np.isin(segments[start], merging)
    correct = joined & ~merged
    total, skeleton = length.sum(), skeletons.skeleton[start]
    lengths = np.bincount(skeleton, length, skeletons.n)
    squares = _squared_runs(segments[start[correct]], skeleton[correct], length[correct], skeletons.n)
    return RunLength(
        expected_nm=_ratio(squares.sum(), total),
        perfect_nm=_ratio((lengths**2).sum(), total),
        total_nm=float(total),
        correct_nm=float(length[correct].sum()),
        split_nm=float(length[found & ~joined].sum()),
        merged_nm=float(length[merged].sum()),
        omitted_nm=float(length[~found].sum()),
        merging_segments=len(merging),
        lengths_nm=lengths,
        expected_each_nm=squares / np.where(lengths > 0, lengths, 1),
    )


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _merging(segments: np.ndarray, skeleton: np.ndarray) -> np.ndarray:
    """Segments with nodes of more than one skeleton."""
    pairs = np.unique(np.stack([segments.astype(np.uint64), skeleton.astype(np.uint64)]), axis=1)
    return pairs[0, 1:][pairs[0, 1:] == pairs[0, :-1]] if pairs.size else segments[:0]


def _squared_runs(
    segments: np.ndarray, skeleton: np.ndarray, length: np.ndarray, n: int
) -> np.ndarray:
    """Sum of squared runs of every skeleton, nm^2."""
    # A segment with correct edges belongs to one skeleton, so its id alone names the run.
    ids, first, run = np.unique(segments, return_index=True, return_inverse=True)
    runs = np.bincount(run, length, len(ids))
    return np.bincount(skeleton[first], runs**2, n)
