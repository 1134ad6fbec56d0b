"""Sites of synapses in the indicator map of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from em_blocks.geometry import Nm3
from em_blocks.kernels.components.sparse_components import (
    Groups,
    boxes,
    central,
    connected,
    coordinates,
    grouped,
    voxels_above,
)
from em_blocks.kernels.components.sparse_depth import deepest, half_voxel
from em_blocks.kernels.components.sparse_maxima import ellipsoid, plateaus
from em_blocks.kernels.components.split_necks import split_necks


@dataclass(frozen=True)
class SplitRule:
    """When to split a component into several sites that touch.

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
        at least one voxel along each axis. An array must reach farther than that beyond the sites of
        interest: what is nearer to its border is not `Detections.complete`.
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
        Bounding box of all voxels that determined the detection, end excluded: the component
        before splitting, or the maximum grown by the search radius. It may exceed the array.
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
        """Tell whether a box meets the array's border: (n, 3 axes, lower and upper side) bool.

        Unless the volume ends there too, the site may be another one, or none, in a larger array.
        """
        return np.stack([self.begin <= 0, self.end >= np.array(self.shape)], axis=2)

    @property
    def complete(self) -> np.ndarray:
        """Sites that would be the same in every larger array: (n,) bool."""
        return ~np.any(self.touches, axis=(1, 2))

    def select(self, rows: np.ndarray) -> Self:
        """The rows of a mask or of indices."""
        groups = Groups(self.voxels, self.starts).select(rows)
        columns = {name: getattr(self, name)[rows] for name in ("site", "score", "size", "begin", "end")}
        return type(self)(**columns, voxels=groups.voxels, starts=groups.starts, shape=self.shape)


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
    values = _plain(indicator)
    limit = largest_not_above(rule.threshold, scale=scale, dtype=values.dtype)
    candidates = _maxima if rule.method == "maxima" else _components
    groups, seen = candidates(values, voxels_above(values, limit), rule, voxel_size)
    if rule.max_size is not None:
        groups, seen = _select(groups.sizes <= rule.max_size, groups, seen)
    score = _scores(values, groups, rule.score, scale)
    if rule.min_score is not None:
        kept = score > rule.min_score
        score, (groups, seen) = score[kept], _select(kept, groups, seen)
    site = _sites(values, groups, rule.site, voxel_size)
    _, ny, nx = values.shape
    return Detections(
        coordinates(site, ny, nx), score, groups.sizes, seen[:, 0], seen[:, 1], *groups, values.shape
    )


def largest_not_above(threshold: float, *, scale: float, dtype: np.dtype) -> np.generic:
    """The largest stored value that does not stand for more than a threshold.

    So that comparing stored values with it gives what comparing ``stored / scale`` with the threshold
    would.

    Parameters
    ----------
    threshold : float
        0 or more, in units of the network's output.
    scale : float
        Stored value of 1.
    dtype : numpy dtype
        Integer or float.
    """
    if not (threshold >= 0 and scale > 0):
        raise ValueError(f"threshold {threshold} must not be negative, scale {scale} must be positive")
    # Dividing rounds: the limit is where the quotient is, one or two values from the product.
    if dtype.kind == "f":
        limit = dtype.type(min(threshold * scale, np.finfo(dtype).max))
        while float(limit) / scale > threshold:
            limit = np.nextafter(limit, dtype.type(-np.inf))
        while float(np.nextafter(limit, dtype.type(np.inf))) / scale <= threshold:
            limit = np.nextafter(limit, dtype.type(np.inf))
        return limit
    limit = min(math.floor(threshold * scale), np.iinfo(dtype).max)
    limit -= limit / scale > threshold
    limit += limit < np.iinfo(dtype).max and (limit + 1) / scale <= threshold
    return dtype.type(limit)


def _select(rows: np.ndarray, groups: Groups, seen: np.ndarray) -> tuple[Groups, np.ndarray]:
    return groups.select(rows), seen[rows]


def _plain(indicator: np.ndarray) -> np.ndarray:
    """The array in a form for compiled kernels: itself, unless it is one of the rare others."""
    if indicator.ndim != 3 or indicator.dtype.kind not in "buif":
        raise ValueError(
            f"an indicator map must be an array (z, y, x) of numbers, got {indicator.dtype} of shape "
            f"{indicator.shape}"
        )
    if indicator.dtype == bool:
        indicator = indicator.view(np.uint8)
    # Neither half floats nor foreign byte orders are known to compiled kernels.
    dtype = np.dtype(np.float32) if indicator.dtype == np.float16 else indicator.dtype.newbyteorder("=")
    return np.ascontiguousarray(indicator, dtype)


def _components(values, voxels, rule, voxel_size) -> tuple[Groups, np.ndarray]:
    """Components, split where the rule says so, and the box that each was found in."""
    _, ny, nx = values.shape
    groups = connected(voxels, values.shape)
    groups = groups.select(groups.sizes >= rule.min_size)  # no part is larger than its component
    seen = boxes(*groups, ny, nx)
    if rule.split is None:
        return groups, seen
    parts, component = split_necks(
        groups, values.shape, voxel_size=voxel_size, min_distance_nm=rule.split.min_distance_nm,
        min_size=rule.split.min_size,
    )
    return _select(parts.sizes >= rule.min_size, parts, seen[component])


def _maxima(values, voxels, rule, voxel_size) -> tuple[Groups, np.ndarray]:
    """Plateaus of local maxima, and the box of all that they were compared with."""
    _, ny, nx = values.shape
    shifts = ellipsoid(rule.radius_nm, voxel_size)
    groups = plateaus(values, voxels, shifts)
    groups = groups.select(groups.sizes >= rule.min_size)
    reach = shifts.max(axis=0)
    return groups, boxes(*groups, ny, nx) + np.stack([-reach, reach])


def _scores(values: np.ndarray, groups: Groups, kind: str, scale: float) -> np.ndarray:
    """Scores of components in units of the network's output."""
    if kind == "count":
        return groups.sizes.astype(np.float64)
    own = values.ravel()[groups.voxels]
    if kind == "max":
        return _largest(own, groups).astype(np.float64) / scale
    # One after the other in float64: exact for integers, and else always the same.
    sums = np.bincount(groups.numbers, weights=own, minlength=len(groups.starts) - 1) / scale
    return sums / groups.sizes if kind == "mean" else sums


def _largest(values: np.ndarray, groups: Groups) -> np.ndarray:
    """Largest of the values of each group; `values` are those of all voxels of the groups."""
    return np.maximum.reduceat(values, groups.starts[:-1]) if len(values) else values


def _sites(values: np.ndarray, groups: Groups, kind: str, voxel_size: Nm3) -> np.ndarray:
    """The voxel that stands for each component: indices into the flat array."""
    _, ny, nx = values.shape
    if kind == "edt":
        return deepest(*groups, ny, nx, half_voxel(voxel_size))
    if kind == "peak":
        own = values.ravel()[groups.voxels]
        on_top = own == np.repeat(_largest(own, groups), groups.sizes)
        groups = grouped(groups.numbers[on_top], groups.voxels[on_top], len(groups.sizes))
    return central(*groups, ny, nx, np.asarray(voxel_size, float))


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
        "site": the vector at the site's voxel; "mean": over all voxels of its component. If every
        voxel points at the partner from its own place, this one leads there from their mean place.

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
    groups = Groups(detections.voxels, detections.starts)
    z, y, x = np.unravel_index(groups.voxels, detections.shape)
    at = vectors[:, z, y, x]
    # One after the other in float64, as scores.
    sums = [np.bincount(groups.numbers, weights=axis, minlength=len(detections)) for axis in at]
    return np.stack(sums, axis=1) / (detections.size * scale)[:, np.newaxis]


def steps_to_centres(detections: Detections) -> np.ndarray:
    """From sites to the mean of their components' voxels: what "mean" vectors count from.

    Returns
    -------
    (n, 3) float64 array
        Voxels (z, y, x). Sums of integers are exact, so it does not depend on the array.
    """
    numbers = np.repeat(np.arange(len(detections)), detections.size)
    voxels = np.stack(np.unravel_index(detections.voxels, detections.shape), axis=1)
    steps = (voxels - detections.site[numbers]).T
    sums = np.stack(
        [np.bincount(numbers, weights=axis, minlength=len(detections)) for axis in steps], axis=1
    )
    return sums / detections.size[:, None]
