"""Targets of heads, as gunpowder nodes behind all augmentation."""

from __future__ import annotations

from collections.abc import Sequence

import gunpowder as gp
import numpy as np

from em_blocks.kernels.segmentation.affinities import affinities, erode_labels
from em_blocks.kernels.segmentation.lsd import reach, shape_descriptors
from em_blocks.kernels.synapses.targets import partner_vectors, site_balls
from em_blocks.training.data.points import offset_nm, sites_of


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


class SynapseTarget(gp.BatchFilter):
    """Base of targets that are painted around postsynaptic sites, within their neuron.

    Sites are deformed as points before anything is painted: balls stay balls, and vectors exact.

    Parameters
    ----------
    labels : gunpowder.ArrayKey
        Neurons (z, y, x); 0 is unknown.
    synapses : gunpowder.GraphKey
    target, mask : gunpowder.ArrayKey
        Provided.
    radius_nm : float
    voxel_size : (3,) floats
        nm (z, y, x).
    """

    def __init__(
        self,
        labels: gp.ArrayKey,
        synapses: gp.GraphKey,
        target: gp.ArrayKey,
        mask: gp.ArrayKey,
        radius_nm: float,
        voxel_size: Sequence[float],
    ):
        self.labels, self.synapses, self.target, self.mask = labels, synapses, target, mask
        self.radius_nm, self.voxel_size = radius_nm, np.asarray(voxel_size, float)

    def setup(self):
        spec = self.spec[self.labels].copy()
        spec.interpolatable = False
        # One voxel more: a site may lie anywhere in its voxel.
        reach = np.ceil(self.radius_nm / self.voxel_size).astype(int) + 1
        self.reach = gp.Coordinate(reach) * spec.voxel_size
        spec.roi = spec.roi.grow(-self.reach, -self.reach)
        for key, dtype in ((self.target, self.dtype), (self.mask, np.uint8)):
            spec.dtype = dtype
            self.provides(key, spec.copy())
        self.enable_autoskip()

    def prepare(self, request):
        # Sites beyond the sample paint into it.
        roi = request[self.target].roi.grow(self.reach, self.reach)
        needed = gp.BatchRequest()
        needed[self.labels] = gp.ArraySpec(roi=roi)
        needed[self.synapses] = gp.GraphSpec(roi=roi)
        return needed

    def process(self, batch, request):
        labels = batch[self.labels].crop(request[self.target].roi.grow(self.reach, self.reach))
        sites = sites_of(batch[self.synapses])
        result = gp.Batch()
        made = self.paint(labels.data, sites, offset_nm(labels.spec.roi))
        for key, data in zip((self.target, self.mask), made, strict=True):
            spec = self.spec[key].copy()
            spec.roi = labels.spec.roi
            result[key] = gp.Array(data, spec).crop(request[key].roi)
        return result


class IndicatorTarget(SynapseTarget):
    """1 in a ball around every postsynaptic site; known where neurons are."""

    dtype = np.uint8

    def paint(self, labels: np.ndarray, sites, offset) -> tuple[np.ndarray, np.ndarray]:
        marked = site_balls(
            labels, sites.post, radius_nm=self.radius_nm, voxel_size=self.voxel_size, offset=offset
        )
        return marked, (labels != 0).astype(np.uint8)


class DirectionVectorTarget(SynapseTarget):
    """Vectors to the presynaptic partner, nm, in a ball around every postsynaptic site."""

    dtype = np.float32

    def paint(self, labels: np.ndarray, sites, offset) -> tuple[np.ndarray, np.ndarray]:
        return partner_vectors(
            labels, sites.post, sites.pre,
            radius_nm=self.radius_nm, voxel_size=self.voxel_size, offset=offset,
        )
