"""From detected sites to partners."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from em_blocks.geometry import Nm3


def centers(voxels: np.ndarray, *, offset: Nm3, voxel_size: Nm3) -> np.ndarray:
    """Positions of voxels: their centres.

    Parameters
    ----------
    voxels : (n, 3) int array
        Voxel (z, y, x) of an array.
    offset, voxel_size : (3,) floats
        World position of the array's first corner, and size of a voxel, nm (z, y, x). Positions in
        different blocks are the same to the last bit if these are the volume's, and voxels counted
        from its corner.

    Returns
    -------
    (n, 3) float64 array
        nm: ``offset + (voxel + 0.5) * voxel_size``.
    """
    return np.asarray(offset, float) + (voxels + 0.5) * np.asarray(voxel_size, float)


def pair(sites: np.ndarray, vectors: np.ndarray, *, flip: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Presynaptic and postsynaptic sites from detected sites and their direction vectors.

    Parameters
    ----------
    sites, vectors : (n, 3) float arrays
        Detected sites, and from there to their partners; nm (z, y, x).
    flip : bool
        Detected sites are presynaptic, and vectors lead to the postsynaptic ones. Otherwise the
        other way round.

    Returns
    -------
    pre, post : (n, 3) float64 arrays
        nm.
    """
    partners = sites + vectors
    return (sites, partners) if flip else (partners, sites)


def within_reach(vectors: np.ndarray, *, min_nm: float = 0.0, max_nm: float | None = None) -> np.ndarray:
    """Vectors that are neither too short nor too long: ``min_nm <= length <= max_nm``.

    Parameters
    ----------
    vectors : (n, 3) float array
        nm.
    min_nm : float
    max_nm : float, optional
        None: no limit.

    Returns
    -------
    (n,) bool array
    """
    length = np.linalg.norm(vectors, axis=1)
    return (length >= min_nm) & ((length <= max_nm) if max_nm is not None else True)


def without_duplicates(sites: np.ndarray, score: np.ndarray, *, distance_nm: float) -> np.ndarray:
    """Of detections nearer to each other than `distance_nm` keep the one of the better score.

    A detection stays if no better one is that near, whether that one stays itself or not. So what is
    farther away than `distance_nm` has no say, and blocks agree on the detections that they share.
    Of equal scores the first in the order of positions (z, y, x) is better, at one place the first row.

    Parameters
    ----------
    sites : (n, 3) float array
        nm.
    score : (n,) float array
    distance_nm : float
        Detections exactly that far apart are both kept; 0 keeps all.

    Returns
    -------
    (n,) bool array
        Rows to keep.
    """
    # A little more than needed: the tree rounds in its own way.
    pairs = cKDTree(sites).query_pairs(distance_nm * (1 + 1e-9), output_type="ndarray")
    distance = np.linalg.norm(sites[pairs[:, 0]] - sites[pairs[:, 1]], axis=1)
    pairs = pairs[distance < distance_nm]
    rank = np.empty(len(sites), np.int64)
    rank[np.lexsort((*sites.T[::-1], -score))] = np.arange(len(sites))
    kept = np.ones(len(sites), bool)
    kept[np.where(rank[pairs[:, 0]] < rank[pairs[:, 1]], pairs[:, 1], pairs[:, 0])] = False
    return kept
