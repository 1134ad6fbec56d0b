"""Random places of samples: within a used box, or so that all of a region is used."""

from __future__ import annotations

import random
from collections.abc import Sequence

import gunpowder as gp
import numpy as np
from scipy.spatial import cKDTree

from em_blocks.geometry import Box
from em_blocks.training.data.keys import SYNAPSES
from em_blocks.training.data.points import inside


class LocationInside(gp.RandomLocation):
    """Choose places where a sample with its context lies in the used box.

    No place is chosen by a site beyond the box, where the other end of a pair may lie.
    """

    def __init__(self, box: gp.Roi, **options):
        super().__init__(**options)
        self.box = box

    def setup(self):
        super().setup()
        if self.ensure_nonempty is None:
            return
        kept = inside(self.points.data, self.box)
        if not kept.all():
            weights = np.diff(self.cumulative_weights, prepend=0.0)[kept]
            self.points = cKDTree(self.points.data[kept])
            self.cumulative_weights = np.cumsum(weights).tolist()


class RegionLocation(gp.BatchFilter):
    """Choose places so that the output of the network lies in a region, or the region in it.

    Context may lie beyond the region. Deformed samples have the same centre.

    Parameters
    ----------
    region : Box
        Voxels.
    voxel_size : gunpowder.Coordinate
        World units.
    output_shape : (3,) int
        Of the network, voxels (z, y, x).
    sites : (n, 3) float array
        Postsynaptic sites, voxels; those in the region count.

    Attributes
    ----------
    p_nonempty : float
        Probability of a place with a site.
    """

    def __init__(
        self, region: Box, voxel_size: gp.Coordinate, output_shape: Sequence[int],
        sites: np.ndarray,
    ):
        self.region, self.voxel_size, self.output_shape = region, voxel_size, output_shape
        voxels = np.floor(sites).astype(int)
        within = (voxels >= region.offset) & (voxels < region.end)
        self.sites = voxels[within.all(axis=1)]
        self.p_nonempty = 0.0

    def setup(self):
        for key, spec in self.spec.items():
            self.updates(key, spec)

    def prepare(self, request):
        centre = request[_smallest(request)].roi.center / self.voxel_size
        begin = [int(c) - n // 2 for c, n in zip(centre, self.output_shape, strict=True)]
        moved = [new - old for new, old in zip(self._begin(), begin, strict=True)]
        self.shift = gp.Coordinate(moved) * self.voxel_size
        wanted = gp.BatchRequest()
        for key, spec in request.items():
            wanted[key] = spec.copy()
            wanted[key].roi = spec.roi.shift(self.shift)
        return wanted

    def process(self, batch, request):
        for key, array in batch.arrays.items():
            array.spec.roi = request[key].roi
        for key, graph in batch.graphs.items():
            graph.spec.roi = request[key].roi
            graph.shift(-self.shift)

    def _begin(self) -> list[int]:
        """Choose the first voxel of the output."""
        ranges = [
            (min(b, e - n), max(b, e - n))
            for b, e, n in zip(self.region.offset, self.region.end, self.output_shape, strict=True)
        ]
        if len(self.sites) and random.random() < self.p_nonempty:
            site = self.sites[random.randrange(len(self.sites))].tolist()
            ranges = [
                (max(low, s - n + 1), min(high, s))
                for (low, high), s, n in zip(ranges, site, self.output_shape, strict=True)
            ]
        return [random.randint(low, high) for low, high in ranges]


def _smallest(request: gp.BatchRequest) -> gp.ArrayKey:
    """The array whose middle is that of the output: raw reaches further, and may do so unevenly."""
    arrays = [key for key in request.array_specs if key != SYNAPSES]
    return min(arrays, key=lambda key: (request[key].roi.size, key.identifier))
