"""Targets of heads, made by a gunpowder node behind all augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import gunpowder as gp
import numpy as np

from em_blocks.models.head import Head
from em_blocks.models.truth import POST, PRE, Truth
from em_blocks.training.data.points import offset_nm, sites_of


class HeadTargets(gp.BatchFilter):
    """Provides what a head learns from, made of a `Truth` that is as much larger as it needs.

    Points are deformed as points before anything is painted: balls stay balls, and vectors exact.

    Parameters
    ----------
    name : str
    head : Head
    voxel_size : (3,) floats
        nm (z, y, x).
    labels : mapping of name to gunpowder.ArrayKey
        Label volumes of the truth (z, y, x), ids, 0 is unknown.
    points : gunpowder.GraphKey
        Pairs of sites, for heads that read any points.

    Attributes
    ----------
    arrays : dict of "name/array" to gunpowder.ArrayKey
        What the node provides, (..., z, y, x) each.
    """

    def __init__(
        self, name: str, head: Head, voxel_size: Sequence[float],
        labels: Mapping[str, gp.ArrayKey], points: gp.GraphKey,
    ):
        self.head, self.voxel_size = head, tuple(voxel_size)
        self.labels, self.points = labels, points
        self.arrays = {
            f"{name}/{array}": gp.ArrayKey(f"{name}/{array}".upper()) for array in head.arrays
        }

    def setup(self):
        first = self.spec[next(iter(self.labels.values()))]
        self.reach = gp.Coordinate(self.head.reach(self.voxel_size)) * first.voxel_size
        spec = first.copy()
        spec.dtype, spec.interpolatable = None, False
        spec.roi = spec.roi.grow(-self.reach, -self.reach)
        for key in self.arrays.values():
            self.provides(key, spec.copy())
        self.enable_autoskip()

    def prepare(self, request):
        # What lies beyond the sample reaches into it: partners, rims, windows, balls around sites.
        roi = self._roi(request).grow(self.reach, self.reach)
        needed = gp.BatchRequest()
        for key in self.labels.values():
            needed[key] = gp.ArraySpec(roi=roi)
        if needs_points(self.head):
            needed[self.points] = gp.GraphSpec(roi=roi)
        return needed

    def process(self, batch, request):
        roi = self._roi(request)
        around = roi.grow(self.reach, self.reach)
        made = self.head.targets(self._truth(batch, around))
        result = gp.Batch()
        for key, values in zip(self.arrays.values(), map(made.get, self.head.arrays), strict=True):
            spec = self.spec[key].copy()
            spec.roi, spec.dtype = roi, values.dtype
            result[key] = gp.Array(_middle(values, roi.shape / spec.voxel_size), spec)
        return result

    def _roi(self, request) -> gp.Roi:
        return request[next(iter(self.arrays.values()))].roi

    def _truth(self, batch, roi: gp.Roi) -> Truth:
        labels = {name: batch[key].crop(roi).data for name, key in self.labels.items()}
        points = {}
        if needs_points(self.head):
            sites = sites_of(batch[self.points])
            points = {PRE: sites.pre, POST: sites.post}
        return Truth(
            self.voxel_size, labels=labels, points=points, offset=tuple(offset_nm(roi).tolist())
        )


def needs_points(head: Head) -> bool:
    """Tell whether a head reads points."""
    return any(entry.startswith("points/") for entry in head.needs)


def _middle(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Cut the middle of (..., z, y, x) values."""
    sides = [(n - m) // 2 for n, m in zip(values.shape[-3:], shape, strict=True)]
    return values[(..., *(slice(s, s + m) for s, m in zip(sides, shape, strict=True)))]
