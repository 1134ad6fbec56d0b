"""Targets of heads, made by a gunpowder node behind all augmentation."""

from __future__ import annotations

from collections.abc import Sequence

import gunpowder as gp
import numpy as np

from em_blocks.models.head import Head
from em_blocks.models.truth import POST, PRE, Truth
from em_blocks.training.data.keys import SYNAPSES, labels_key, mask_key
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

    Attributes
    ----------
    arrays : dict of "name/array" to gunpowder.ArrayKey
        What the node provides, (..., z, y, x) each.
    """

    def __init__(self, name: str, head: Head, voxel_size: Sequence[float]):
        self.head, self.voxel_size = head, tuple(voxel_size)
        self.labels = {entry: labels_key(entry) for entry in needed(head, "labels")}
        self.masks = {entry: mask_key(entry) for entry in needed(head, "masks")}
        self.volumes = [*self.labels.values(), *self.masks.values()]
        self.arrays = {
            f"{name}/{array}": gp.ArrayKey(f"{name}/{array}".upper()) for array in head.arrays
        }

    def setup(self):
        first = self.spec[self.volumes[0]]
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
        upstream = gp.BatchRequest()
        for key in self.volumes:
            upstream[key] = gp.ArraySpec(roi=roi)
        if needed(self.head, "points"):
            upstream[SYNAPSES] = gp.GraphSpec(roi=roi)
        return upstream

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
        labels, masks = (
            {name: batch[key].crop(roi).data for name, key in keys.items()}
            for keys in (self.labels, self.masks)
        )
        points = {}
        if needed(self.head, "points"):
            sites = sites_of(batch[SYNAPSES])
            points = {PRE: sites.pre, POST: sites.post}
        return Truth(self.voxel_size, labels, masks, points, tuple(offset_nm(roi).tolist()))


def needed(head: Head, kind: str) -> list[str]:
    """Name the "labels", "masks" or "points" of a `Truth` that a head reads."""
    entries = (entry.partition("/") for entry in sorted(head.needs))
    return [name for of, _, name in entries if of == kind]


def _middle(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Cut the middle of (..., z, y, x) values."""
    sides = [(n - m) // 2 for n, m in zip(values.shape[-3:], shape, strict=True)]
    return values[(..., *(slice(s, s + m) for s, m in zip(sides, shape, strict=True)))]
