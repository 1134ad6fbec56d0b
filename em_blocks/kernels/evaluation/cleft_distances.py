"""How far predicted synaptic clefts are from true ones, as CREMI measures it.

Distances are exact, but no distance transform is made: of a volume that is nearly empty only the
voxels of clefts are kept, and the nearest one is looked up in a tree.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

FAR_NM = 200.0


class CleftVoxels(NamedTuple):
    """Where clefts are.

    Attributes
    ----------
    places : (n, 3) int64 array
        Voxels (z, y, x).
    border : (n,) bool array
        Voxels of which at least one of the 6 neighbours may be outside of clefts. Seen from
        anywhere else, the nearest voxel of a cleft is one of these.
    """

    places: np.ndarray
    border: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray, corner: tuple[int, int, int] = (0, 0, 0)) -> CleftVoxels:
        """The voxels of a block whose first one is `corner`. Those at its faces are border."""
        places = np.argwhere(mask)
        inside = np.zeros(len(places), bool)
        if len(places):
            inside = np.all((places > 0) & (places < np.subtract(mask.shape, 1)), axis=1)
            z, y, x = places[inside].T
            inside[inside] = (
                mask[z - 1, y, x] & mask[z + 1, y, x] & mask[z, y - 1, x] & mask[z, y + 1, x]
                & mask[z, y, x - 1] & mask[z, y, x + 1]
            )
        return cls(places + np.array(corner), ~inside)

    @classmethod
    def concatenate(cls, parts: list[CleftVoxels]) -> CleftVoxels:
        if not parts:
            return cls(np.zeros((0, 3), np.int64), np.zeros(0, bool))
        return cls(*map(np.concatenate, zip(*parts, strict=True)))


class Distances(NamedTuple):
    """Distances from the voxels of clefts to the nearest one on the other side, nm.

    Attributes
    ----------
    count : int
        Voxels, those at distance 0 included.
    far : int
        Voxels farther than the threshold.
    mean, std, max, median : float or None
        nm; None if there is no cleft on either side to measure from or to.
    """

    count: int  # type: ignore[assignment]  # hides tuple.count
    far: int
    mean: float | None
    std: float | None
    max: float | None
    median: float | None


class CleftScores(NamedTuple):
    """Predicted clefts against true ones.

    Attributes
    ----------
    false_positives : Distances
        From predicted voxels to truth.
    false_negatives : Distances
        From true voxels to the prediction.
    score : float or None
        Mean of both mean distances, nm: the score of the CREMI challenge. Lower is better.
    """

    false_positives: Distances
    false_negatives: Distances
    score: float | None


def score_clefts(
    *, prediction: CleftVoxels, truth: CleftVoxels, voxel_size: tuple[float, float, float],
    far_nm: float = FAR_NM,
) -> CleftScores:
    """Distances in both directions.

    Parameters
    ----------
    voxel_size : (3,) float
        nm (z, y, x). Distances are between the middles of voxels.
    far_nm : float
        Voxels farther than this are counted as wrong.

    References
    ----------
    CREMI challenge, https://cremi.org/metrics/ (synaptic clefts).
    """
    positives, negatives = (
        _summary(nearest_distances(one, other, voxel_size), far_nm)
        for one, other in ((prediction, truth), (truth, prediction))
    )
    means = [side.mean for side in (positives, negatives) if side.mean is not None]
    return CleftScores(positives, negatives, sum(means) / 2 if len(means) == 2 else None)


def nearest_distances(
    clefts: CleftVoxels, others: CleftVoxels, voxel_size: tuple[float, float, float]
) -> np.ndarray:
    """(n,) float64: nm from each voxel of `clefts` to the nearest of `others`; inf if there is none."""
    if not len(others.places):
        return np.full(len(clefts.places), np.inf)
    size, distances = np.asarray(voxel_size, float), np.zeros(len(clefts.places))
    outside = ~_among(clefts.places, others.places)
    tree = cKDTree(others.places[others.border] * size)
    distances[outside] = tree.query(clefts.places[outside] * size)[0]
    return distances


def _among(places: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Find voxels that are among the others."""
    low = others.min(axis=0)
    shape = others.max(axis=0) - low + 1
    inside = ((places >= low) & (places < low + shape)).all(axis=1)
    found = np.zeros(len(places), bool)
    numbers, known = (
        np.ravel_multi_index((rows - low).T, shape) for rows in (places[inside], others)
    )
    found[inside] = np.isin(numbers, known)
    return found


def _summary(distances: np.ndarray, far_nm: float) -> Distances:
    far = int((distances > far_nm).sum())
    if not len(distances) or np.isinf(distances[0]):
        return Distances(len(distances), far, None, None, None, None)
    return Distances(
        len(distances), far, float(distances.mean()), float(distances.std()),
        float(distances.max()), float(np.median(distances)),
    )
