"""Sites of synapses in the indicator map of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from scipy import ndimage

Nm3 = tuple[float, float, float]


@dataclass(frozen=True)
class SplitRule:
    """When a component is taken for several sites that have run into each other.

    Attributes
    ----------
    min_distance_nm : float
        Two parts are kept apart only if their widest places are at least so far from each other.
    min_size : int
        Voxels that a part must have.
    """

    min_distance_nm: float
    min_size: int = 1


@dataclass(frozen=True)
class DetectionRule:
    """What is a site, where it is and how sure it is.

    Attributes
    ----------
    threshold : float
        Voxels of more than this are looked at (strictly more); in units of the network's output.
    method : str
        "components": every connected component (6 neighbours) of these voxels is a site.
        "maxima": every plateau of one value (6 neighbours) is a site, of those of these voxels that
        have no larger voxel within `radius_nm`.
    site : str
        Which voxel stands for the component. "edt": the one farthest from the component's border;
        "centroid": the one nearest to the centre of mass of all; "peak": of those of the largest
        value the one nearest to their centre of mass. Of several the first in raster order.
    score : str
        "sum", "mean" or "max" of the voxels' values, or "count", their number.
    min_score : float, optional
        Sites of this score or less are left out.
    min_size, max_size : int
        Sites of fewer or more voxels are left out. None: no limit.
    radius_nm : (3,) floats, optional
        For "maxima": half axes (z, y, x) of the ellipsoid in which nothing may be larger. Taken as
        at least one voxel along each axis.
    split : SplitRule, optional
        For "components": take them apart at their necks.
    """

    threshold: float
    method: Literal["components", "maxima"] = "components"
    site: Literal["edt", "centroid", "peak"] = "edt"
    score: Literal["sum", "mean", "max", "count"] = "sum"
    min_score: float | None = None
    min_size: int = 1
    max_size: int | None = None
    radius_nm: Nm3 | None = None
    split: SplitRule | None = None


@dataclass(frozen=True)
class Detections:
    """Sites in an array as columns, in the raster order of the first voxels of their components.

    Attributes
    ----------
    site : (n, 3) int64
        Voxel (z, y, x).
    score : (n,) float64
        In units of the network's output.
    size : (n,) int64
        Voxels of the component.
    begin, end : (n, 3) int64
        Box of all voxels that had a say; end excluded. That is the component's own; before splitting,
        if it was split; and grown by the radius for maxima. It may reach out of the array.
    voxels : (m,) int64
        Voxels of all components, one after the other, each in raster order: indices into the flat
        array.
    starts : (n + 1,) int64
        Component i has ``voxels[starts[i]:starts[i + 1]]``.
    shape : (3,) ints
        Of the array.
    """

    site: np.ndarray
    score: np.ndarray
    size: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    voxels: np.ndarray
    starts: np.ndarray
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.site)

    @property
    def touches(self) -> np.ndarray:
        """Whether a box meets the array's border: (n, 3 axes, lower and upper side) bool.

        Unless the volume ends there too, the site may be another one, or none, in a larger array.
        """
        return np.stack([self.begin <= 0, self.end >= np.array(self.shape)], axis=2)

    @property
    def complete(self) -> np.ndarray:
        """Sites that would be the same in every larger array: (n,) bool."""
        return ~self.touches.any(axis=(1, 2))

    def select(self, rows: np.ndarray) -> Self:
        """The rows of a mask or of indices."""
        rows = np.arange(len(self))[rows]
        count = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(count)])
        voxels = np.repeat(self.starts[rows] - starts[:-1], count) + np.arange(starts[-1])
        columns = {name: getattr(self, name)[rows] for name in ("site", "score", "size", "begin", "end")}
        return type(self)(**columns, voxels=self.voxels[voxels], starts=starts, shape=self.shape)


def detect(indicator: np.ndarray, *, scale: float, rule: DetectionRule, voxel_size: Nm3) -> Detections:
    """Find sites in an indicator map.

    All that is said of a site depends on its component's voxels and their values only: not on the
    array's extent, nor on where in it the component is, as long as it is `complete`. Sums are exact
    or in a fixed order, so that results are the same to the last bit.

    Parameters
    ----------
    indicator : (z, y, x) unsigned integer or float array
        As stored: the network's output times `scale`. It is never converted as a whole.
    scale : float
    rule : DetectionRule
    voxel_size : (3,) floats
        nm (z, y, x).

    Raises
    ------
    ValueError
        If the array is not three-dimensional or of another type.

    References
    ----------
    Components and their distance transform as in synful, doi:10.1038/s41592-021-01183-7.
    """
    labels, _ = ndimage.label(indicator / scale > rule.threshold)
    rows = []
    for i, box in enumerate(ndimage.find_objects(labels), start=1):
        voxels = np.argwhere(labels[box] == i) + [s.start for s in box]
        values = indicator[tuple(voxels.T)].astype(float) / scale
        score = {"sum": values.sum(), "mean": values.mean(), "max": values.max(), "count": len(values)}
        offset = (voxels - voxels.mean(axis=0)) * voxel_size
        site = voxels[np.argmin((offset**2).sum(axis=1))]
        flat = np.ravel_multi_index(tuple(voxels.T), indicator.shape)
        begin, end = [s.start for s in box], [s.stop for s in box]
        rows.append((site, score[rule.score], len(voxels), begin, end, flat))
    site, score, size, begin, end, flat = zip(*rows) if rows else ((),) * 6
    found = Detections(
        np.array(site, np.int64).reshape(-1, 3), np.array(score, float), np.array(size, np.int64),
        np.array(begin, np.int64).reshape(-1, 3), np.array(end, np.int64).reshape(-1, 3),
        np.concatenate([*flat, np.empty(0, np.int64)]), np.cumsum([0, *size]), indicator.shape,
    )
    kept = found.size >= rule.min_size
    if rule.max_size is not None:
        kept &= found.size <= rule.max_size
    if rule.min_score is not None:
        kept &= found.score > rule.min_score
    return found.select(kept)


def direction_vectors_of(
    detections: Detections, vectors: np.ndarray, *, scale: float, how: Literal["site", "mean"] = "site"
) -> np.ndarray:
    """Direction vectors of detected sites.

    Parameters
    ----------
    detections : Detections
    vectors : (3, z, y, x) integer or float array
        Of the array in which sites were detected, as stored: nm (z, y, x) times `scale`.
    scale : float
    how : str
        "site": the vector at the site's voxel; "mean": over all voxels of its component.

    Returns
    -------
    (n, 3) float64 array
        nm (z, y, x).

    Raises
    ------
    ValueError
        If the vectors are of another shape than the array in which sites were detected.
    """
    if vectors.shape != (3, *detections.shape):
        raise ValueError(f"vectors must have the shape {(3, *detections.shape)}, got {vectors.shape}")
    if how == "site":
        z, y, x = detections.site.T
        return vectors[:, z, y, x].T.astype(np.float64) / scale
    at = vectors[(slice(None), *np.unravel_index(detections.voxels, detections.shape))]
    sums = np.add.reduceat(at.astype(np.float64), detections.starts[:-1], axis=1)
    return (sums / detections.size / scale).T
