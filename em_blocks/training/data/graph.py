"""The gunpowder graph that turns sources into augmented samples."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

import gunpowder as gp
import numpy as np

from em_blocks.geometry import Box
from em_blocks.models.config import AugmentConfig, Normalization
from em_blocks.training.data.augment import (
    Deform,
    intensity_changes,
    mirror_and_transpose,
    moved_sections,
)
from em_blocks.training.data.domain import Range
from em_blocks.training.data.keys import RAW, SYNAPSES, labels_key, mask_key
from em_blocks.training.data.locations import LocationInside, RegionLocation
from em_blocks.training.data.points import SynapseSource, inside
from em_blocks.training.data.reading.beyond import read_mirrored, read_within
from em_blocks.training.data.reading.voxels import Voxels
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.data.units import UNITS_PER_NM, world


def sample_graph(
    sources: Sequence[TrainingData],
    *,
    voxel_size: Sequence[float],
    augment: AugmentConfig,
    normalization: Normalization,
    intensities: Range,
    targets: Sequence[gp.BatchFilter],
    locations: Sequence[gp.BatchFilter],
) -> gp.Pipeline:
    """Make the graph that provides raw, labels, masks and synapses of sources, and the `targets`.

    Targets are computed last, from the deformed labels and sites: deforming affinities
    would mix the channels of different shifts, and bend balls and vectors.

    Parameters
    ----------
    intensities : (low, high)
        Stored intensities that augmentation calls 0 and 1.
    locations : sequence of gunpowder nodes
        Of every source the node that chooses where samples are cut, as `location` makes it.
    """
    size = world(voxel_size)
    branches = tuple(
        _source(data, size, endless=isinstance(location, RegionLocation)) + location
        for data, location in zip(sources, locations, strict=True)
    )
    nodes = [
        gp.RandomProvider([data.weight for data in sources]),
        Deform(augment, voxel_size),
        *moved_sections(voxel_size, augment),
        mirror_and_transpose(voxel_size),
        *_to_unit(intensities),
        *intensity_changes(augment),
        _from_unit(intensities, normalization),
        *targets,
    ]
    return functools.reduce(operator.add, nodes, branches)


def _to_unit(intensities: Range) -> list[gp.BatchFilter]:
    low, width = intensities[0], intensities[1] - intensities[0]
    scaled = gp.Normalize(RAW, factor=1 / width)
    return [scaled, gp.IntensityScaleShift(RAW, 1.0, -low / width)] if low else [scaled]


def _from_unit(intensities: Range, normalization: Normalization) -> gp.BatchFilter:
    low, width = intensities[0], intensities[1] - intensities[0]
    return gp.IntensityScaleShift(
        RAW, width * normalization.scale, low * normalization.scale + normalization.shift
    )


def location(
    data: TrainingData, voxel_size: Sequence[float], output_shape: Sequence[int], fits: bool
) -> LocationInside | RegionLocation:
    """Choose where samples of `data` are cut; near a synapse with the probability `p_nonempty`.

    Parameters
    ----------
    output_shape : (3,) int
        Of the network, voxels.
    fits : bool
        Whether a sample with its context fits into the used box. Boxes with labels are then used
        as they always were; of those with classes all voxels are output, and context lies beyond.
    """
    box = _box(data, world(voxel_size))
    sites = [] if data.synapses is None else [data.synapses.pre, data.synapses.post]
    if data.classes or not fits:
        post = np.array(sites[1] if sites else (), float).reshape(-1, 3)
        region = Box.between(data.begin, data.end)
        return RegionLocation(region, world(voxel_size), output_shape, post / voxel_size)
    any_inside = any(inside(site * UNITS_PER_NM, box).any() for site in sites)
    return LocationInside(box, ensure_nonempty=SYNAPSES if any_inside else None, p_nonempty=0.0)


def _box(data: TrainingData, size: gp.Coordinate) -> gp.Roi:
    """Compute the used box of a source in world units."""
    return gp.Roi(data.begin, gp.Coordinate(data.end) - gp.Coordinate(data.begin)) * size


class VoxelSource(gp.BatchProvider):
    """Provide voxels of a used box, read as they are asked for.

    Parameters
    ----------
    key : gunpowder.ArrayKey
    voxels : Voxels
    roi : gunpowder.Roi
        The used box; voxel (0, 0, 0) lies at the origin.
    voxel_size : gunpowder.Coordinate
    interpolatable : bool
        Whether values between two voxels have a meaning.
    """

    def __init__(
        self, key: gp.ArrayKey, voxels: Voxels, roi: gp.Roi, voxel_size: gp.Coordinate,
        interpolatable: bool,
    ):
        self.key, self.voxels = key, voxels
        self.array_spec = gp.ArraySpec(roi, voxel_size, interpolatable, False, voxels.dtype)

    def setup(self):
        self.provides(self.key, self.array_spec)

    def provide(self, request):
        spec = self.array_spec.copy()
        spec.roi = request[self.key].roi
        batch = gp.Batch()
        batch[self.key] = gp.Array(self.read(spec.roi / spec.voxel_size), spec)
        return batch

    def read(self, where: gp.Roi) -> np.ndarray:
        """Read voxels."""
        return self.voxels[where.to_slices()]


class EndlessSource(VoxelSource):
    """Provide voxels around a region, too: raw mirrored where it ends, all else 0 around it."""

    def __init__(
        self, key: gp.ArrayKey, voxels: Voxels, region: Box, voxel_size: gp.Coordinate,
        interpolatable: bool,
    ):
        super().__init__(key, voxels, _ENDLESS, voxel_size, interpolatable)
        self.region = region

    def read(self, where: gp.Roi) -> np.ndarray:
        box = Box(where.offset, where.shape)
        if self.key == RAW:
            return read_mirrored(self.voxels, box)
        return read_within(self.voxels, self.region, box)


_ENDLESS = gp.Roi((None,) * 3, (None,) * 3)


def _source(data: TrainingData, size: gp.Coordinate, *, endless: bool) -> gp.Pipeline:
    box = _box(data, size)
    labels = {labels_key(name): voxels for name, voxels in data.labels.items()}
    masks = {mask_key(name): voxels for name, voxels in data.masks.items()}
    arrays = [(RAW, data.raw), *(labels | masks).items()]
    if endless:
        region = Box.between(data.begin, data.end)
        branches = tuple(
            EndlessSource(key, voxels, region, size, key == RAW) for key, voxels in arrays
        )
    else:
        # gunpowder derives the seeds of a request from the number of nodes that it has passed. The
        # crop changes nothing else; without it, trainings that older versions began would see other
        # samples.
        branches = tuple(
            VoxelSource(key, voxels, box, size, key == RAW) + gp.Crop(key, box)
            for key, voxels in arrays
        )
    if data.synapses is not None:
        synapses = SynapseSource(SYNAPSES, data.synapses, _ENDLESS if endless else box, box)
        branches = (*branches, synapses)
    return branches + gp.MergeProvider()
