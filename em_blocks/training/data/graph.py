"""The gunpowder graph that turns sources into augmented samples."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

import gunpowder as gp
import numpy as np
from scipy.spatial import cKDTree

from em_blocks.models.config import AugmentConfig, Normalization
from em_blocks.training.data.augment import Deform, intensity_changes, mirror_and_transpose
from em_blocks.training.data.domain import Range
from em_blocks.training.data.keys import RAW, SYNAPSES, labels_key, mask_key
from em_blocks.training.data.points import SynapseSource, inside
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.data.units import UNITS_PER_NM, world
from em_blocks.training.data.voxels import Voxels


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
        _source(data, size) + location for data, location in zip(sources, locations, strict=True)
    )
    nodes = [
        gp.RandomProvider([data.weight for data in sources]),
        Deform(augment, voxel_size),
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


def location(data: TrainingData, voxel_size: Sequence[float]) -> gp.RandomLocation:
    """Choose where samples of `data` are cut; near a synapse with the probability `p_nonempty`."""
    box = _box(data, world(voxel_size))
    sites = [] if data.synapses is None else [data.synapses.pre, data.synapses.post]
    any_inside = any(inside(site * UNITS_PER_NM, box).any() for site in sites)
    return _Location(box, ensure_nonempty=SYNAPSES if any_inside else None, p_nonempty=0.0)


class _Location(gp.RandomLocation):
    """Choose no place by a site beyond the box, where the other end of a pair may lie."""

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
        batch[self.key] = gp.Array(self.voxels[(spec.roi / spec.voxel_size).to_slices()], spec)
        return batch


def _source(data: TrainingData, size: gp.Coordinate) -> gp.Pipeline:
    box = _box(data, size)
    labels = {labels_key(name): voxels for name, voxels in data.labels.items()}
    masks = {mask_key(name): voxels for name, voxels in data.masks.items()}
    arrays = [(RAW, data.raw), *(labels | masks).items()]
    # gunpowder derives the seeds of a request from the number of nodes that it has passed. The crop
    # changes nothing else; without it, trainings that older versions began would see other samples.
    branches = tuple(
        VoxelSource(key, voxels, box, size, key == RAW) + gp.Crop(key, box) for key, voxels in arrays
    )
    if data.synapses is not None:
        branches = (*branches, SynapseSource(SYNAPSES, data.synapses, box))
    return branches + gp.MergeProvider()
