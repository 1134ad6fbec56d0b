"""Targets of heads, as gunpowder nodes behind all augmentation."""

from __future__ import annotations

from collections.abc import Sequence

import gunpowder as gp
import numpy as np

from em_blocks.kernels.affinities import affinities, erode_labels
from em_blocks.kernels.shape_descriptors import reach, shape_descriptors


class AffinityTarget(gp.BatchFilter):
    """Affinities of the labels, and a mask of the pairs that are known.

    Parameters
    ----------
    labels : gunpowder.ArrayKey
        Ids (z, y, x); 0 is unknown.
    target, mask : gunpowder.ArrayKey
        Provided: (c, z, y, x) uint8 each.
    neighborhood : (c, 3) ints
        Shifts to the partners, voxels.
    boundary : (3,) ints
        Rim of every object that counts as membrane, voxels (z, y, x).
    """

    def __init__(
        self,
        labels: gp.ArrayKey,
        target: gp.ArrayKey,
        mask: gp.ArrayKey,
        neighborhood: Sequence[Sequence[int]],
        boundary: Sequence[int],
    ):
        self.labels, self.target, self.mask = labels, target, mask
        self.neighborhood, self.boundary = neighborhood, boundary

    def setup(self):
        spec = self.spec[self.labels].copy()
        spec.dtype, spec.interpolatable = np.uint8, False
        self.reach = (
            gp.Coordinate(np.abs(self.neighborhood).max(axis=0)) + gp.Coordinate(self.boundary)
        ) * spec.voxel_size
        spec.roi = spec.roi.grow(-self.reach, -self.reach)
        for key in (self.target, self.mask):
            self.provides(key, spec)
        self.enable_autoskip()

    def prepare(self, request):
        # Partners and rims beyond the sample are read too: masking them would
        # leave the long shifts without examples near every face.
        needed = gp.BatchRequest()
        roi = request[self.target].roi.grow(self.reach, self.reach)
        needed[self.labels] = gp.ArraySpec(roi=roi)
        return needed

    def process(self, batch, request):
        labels = batch[self.labels]
        made = affinities(
            erode_labels(labels.data, self.boundary), self.neighborhood, known=labels.data != 0
        )
        result = gp.Batch()
        for key, data in ((self.target, made.values), (self.mask, made.mask)):
            spec = self.spec[key].copy()
            spec.roi = labels.spec.roi
            result[key] = gp.Array(data, spec).crop(request[self.target].roi)
        return result


class LsdTarget(gp.BatchFilter):
    """Local shape descriptors of the labels, and a mask of where they are known.

    Parameters
    ----------
    labels : gunpowder.ArrayKey
        Ids (z, y, x); 0 is unknown.
    target, mask : gunpowder.ArrayKey
        Provided: (10, z, y, x) float32 and (z, y, x) uint8.
    sigma_nm : float
        Standard deviation of the window.
    voxel_size : (3,) floats
        nm (z, y, x).
    """

    def __init__(
        self,
        labels: gp.ArrayKey,
        target: gp.ArrayKey,
        mask: gp.ArrayKey,
        sigma_nm: float,
        voxel_size: Sequence[float],
    ):
        self.labels, self.target, self.mask = labels, target, mask
        self.sigma_nm, self.voxel_size = sigma_nm, voxel_size
        self.margin = reach(sigma_nm, voxel_size)

    def setup(self):
        spec = self.spec[self.labels].copy()
        spec.interpolatable = False
        self.reach = gp.Coordinate(self.margin) * spec.voxel_size
        spec.roi = spec.roi.grow(-self.reach, -self.reach)
        for key, dtype in ((self.target, np.float32), (self.mask, np.uint8)):
            spec.dtype = dtype
            self.provides(key, spec.copy())
        self.enable_autoskip()

    def prepare(self, request):
        needed = gp.BatchRequest()
        roi = request[self.target].roi.grow(self.reach, self.reach)
        needed[self.labels] = gp.ArraySpec(roi=roi)
        return needed

    def process(self, batch, request):
        labels = batch[self.labels]
        box = labels.crop(request[self.target].roi.grow(self.reach, self.reach))
        made = shape_descriptors(
            np.ascontiguousarray(box.data),
            sigma_nm=self.sigma_nm, voxel_size=self.voxel_size, margin=self.margin,
        )
        result = gp.Batch()
        for key, data in ((self.target, made.values), (self.mask, made.mask)):
            spec = self.spec[key].copy()
            spec.roi = request[self.target].roi
            result[key] = gp.Array(data, spec).crop(request[key].roi)
        return result
