"""The gunpowder graph that turns sources into augmented samples.

World units of the graph are tenths of a nm, because gunpowder's coordinates
are integers and voxel sizes such as 4.6 nm are not.
"""

from __future__ import annotations

import functools
import math
import operator
import random
from collections.abc import Sequence

import dask
import gunpowder as gp
import numpy as np
from funlib.persistence import Array as PersistentArray
from scipy import ndimage
from scipy.spatial import cKDTree

from em_blocks.errors import GeometryError
from em_blocks.kernels.transforms.deform import deformed_points, deformed_positions, sample
from em_blocks.models.config import AugmentConfig, Normalization
from em_blocks.training.data.points import UNITS_PER_NM, SynapseSource, inside
from em_blocks.training.data.sources import VOXEL_SIZE_TOLERANCE, TrainingData

# Reading through dask's thread pool hangs once a process that used it forks,
# and is slower for reads as small as a training sample.
dask.config.set(scheduler="synchronous")

RAW = gp.ArrayKey("RAW")
LABELS = gp.ArrayKey("LABELS")
SYNAPSES = gp.GraphKey("SYNAPSES")


def world(nm: Sequence[float]) -> gp.Coordinate:
    """Graph units of lengths in nm.

    Raises
    ------
    GeometryError
        If a length is not a whole number of tenths of a nm.
    """
    units = [round(length * UNITS_PER_NM) for length in nm]
    if not np.allclose(units, np.asarray(nm) * UNITS_PER_NM):
        near = tuple(unit / UNITS_PER_NM for unit in units)
        advice = (
            f"Set `voxel_size` of the setup to {near}: within 1 %, and the data stay as they are."
            if np.allclose(near, nm, rtol=VOXEL_SIZE_TOLERANCE, atol=0)
            else "Resample the data to such a size; rounding would change it by more than 1 %."
        )
        raise GeometryError(
            f"The voxel size {tuple(nm)} nm (zyx) is not a whole number of tenths of a nm, in which a "
            f"training counts places. {advice}"
        )
    return gp.Coordinate(units)


def sample_graph(
    sources: Sequence[TrainingData],
    *,
    voxel_size: Sequence[float],
    augment: AugmentConfig,
    normalization: Normalization,
    targets: Sequence[gp.BatchFilter],
    locations: Sequence[gp.BatchFilter],
) -> gp.Pipeline:
    """Graph that provides `RAW`, `LABELS`, `SYNAPSES` of sources that have some, and the `targets`.

    Targets are computed last, from the deformed labels and sites: deforming affinities
    would mix the channels of different shifts, and bend balls and vectors.

    Parameters
    ----------
    locations : sequence of gunpowder nodes
        Of every source the node that chooses where samples are cut, as `location` makes it.
    """
    size = world(voxel_size)
    branches = tuple(
        _source(data, size) + location for data, location in zip(sources, locations, strict=True)
    )
    weights = [data.weight for data in sources]
    nodes = [
        gp.RandomProvider(weights),
        Deform(augment, voxel_size),
        _mirror_and_transpose(voxel_size),
        gp.Normalize(RAW, factor=1 / 255),
        *_intensity(augment),
        gp.IntensityScaleShift(RAW, 255 * normalization.scale, normalization.shift),
        *targets,
    ]
    return functools.reduce(operator.add, nodes, branches)


def location(data: TrainingData, voxel_size: Sequence[float]) -> gp.RandomLocation:
    """Chooses where samples of `data` are cut; near a synapse with the probability `p_nonempty`."""
    box = _box(data, world(voxel_size))
    sites = [] if data.synapses is None else [data.synapses.pre, data.synapses.post]
    any_inside = any(inside(site * UNITS_PER_NM, box).any() for site in sites)
    return _Location(box, ensure_nonempty=SYNAPSES if any_inside else None, p_nonempty=0.0)


class _Location(gp.RandomLocation):
    """Never asks for a site beyond the box, where the other end of a pair may lie."""

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
    """The used box of a source."""
    return gp.Roi(data.begin, gp.Coordinate(data.end) - gp.Coordinate(data.begin)) * size


def largest_read(
    shape: Sequence[int], voxel_size: Sequence[float], augment: AugmentConfig
) -> tuple[int, int, int]:
    """Voxels (z, y, x) that a sample of `shape` can need once deformed and transposed."""
    if not augment.elastic:
        return tuple(shape)
    equal = _axes_as_long_as_x(voxel_size)
    cube = [max(shape[a] for a in equal) if axis in equal else shape[axis] for axis in range(3)]
    rotated = (cube[0], *[math.hypot(*cube[1:])] * 2)
    needed = []
    for axis in range(3):
        zoom = augment.scale if axis in equal else 0.0
        # Displacements end at three standard deviations; two voxels for rounding.
        bend = 2 * 3 * augment.jitter_nm[axis] / voxel_size[axis] + 2
        needed.append(math.ceil(rotated[axis] / (1 - zoom) + bend))
    return tuple(needed)


def _source(data: TrainingData, size: gp.Coordinate) -> gp.Pipeline:
    arrays = ((RAW, data.raw, True), (LABELS, data.labels, False))
    box = _box(data, size)
    branches = tuple(
        gp.ArraySource(key, PersistentArray(array, (0, 0, 0), size), interpolatable)
        + gp.Crop(key, box)
        for key, array, interpolatable in arrays
    )
    if data.synapses is not None:
        branches = (*branches, SynapseSource(SYNAPSES, data.synapses, box))
    return branches + gp.MergeProvider()


def _mirror_and_transpose(voxel_size: Sequence[float]) -> gp.SimpleAugment:
    """Mirror every axis; exchange only axes along which voxels are equally long.

    Exchanging others would show the network tissue of a shape that does not
    exist, and asks for regions outside the volume.
    """
    return _Symmetries(transpose_only=_axes_as_long_as_x(voxel_size))


class _Symmetries(gp.SimpleAugment):
    """Keeps sites beyond the sample: gunpowder drops them, and with a partner goes its pair."""

    def process(self, batch, request):
        for graph in batch.graphs.values():
            graph.remove_node = lambda node: None  # of this graph alone, and until it was turned
        super().process(batch, request)
        for graph in batch.graphs.values():
            del graph.remove_node


def _axes_as_long_as_x(voxel_size: Sequence[float]) -> list[int]:
    return [axis for axis in range(3) if voxel_size[axis] == voxel_size[2]]


def _intensity(augment: AugmentConfig) -> list[gp.BatchFilter]:
    contrast, brightness = augment.contrast, augment.brightness
    return [
        Gamma(RAW, augment.gamma),
        Blur(RAW, augment.blur),
        gp.DefectAugment(
            RAW, prob_missing=augment.missing_sections, prob_low_contrast=augment.faint_sections
        ),
        gp.IntensityAugment(RAW, 1 - contrast, 1 + contrast, -brightness, brightness, clip=False),
        gp.NoiseAugment(RAW, clip=False, var=augment.noise**2, p=0.5),
    ]


class Deform(gp.BatchFilter):
    """Deform, rotate in plane and scale samples; reads as much more as that needs.

    gunpowder's DeformAugment is not used: it magnifies by n / (n - 1) along an
    axis with n control points, which is a lot for samples of training size.
    All arrays must share one voxel size.

    Parameters
    ----------
    augment : AugmentConfig
    voxel_size : (3,) floats
        nm (z, y, x).
    """

    def __init__(self, augment: AugmentConfig, voxel_size: Sequence[float]):
        self.augment = augment
        self.voxel_size = voxel_size

    def skip_node(self, request):
        return random.random() >= self.augment.elastic

    def prepare(self, request):
        step = world(self.voxel_size)
        total = request.get_total_roi()
        positions = self._positions(request.random_seed, total.shape / step)
        self.whole, self.total = positions, total
        self.positions, needed = {}, gp.BatchRequest()
        for key, spec in request.items():
            box = ((spec.roi - total.offset) / step).to_slices()
            here = positions[:, *box]
            begin = gp.Coordinate(np.floor(here.min(axis=(1, 2, 3))))
            end = gp.Coordinate(np.ceil(here.max(axis=(1, 2, 3)))) + 1
            roi = gp.Roi(begin, end - begin) * step + total.offset
            needed[key] = type(spec)(roi=roi)
            if isinstance(key, gp.ArrayKey):
                self.positions[key] = here - np.reshape(begin, (3, 1, 1, 1)).astype(np.float32)
        return needed

    def process(self, batch, request):
        result = gp.Batch()
        for key, positions in self.positions.items():
            array = batch[key]
            spec = array.spec.copy()
            spec.roi = request[key].roi
            data = sample(array.data, positions, interpolate=spec.interpolatable)
            result[key] = gp.Array(data, spec)
        for key, graph in batch.graphs.items():
            result[key] = self._moved(graph, request[key].roi)
        return result

    def _moved(self, graph: gp.Graph, roi: gp.Roi) -> gp.Graph:
        """The graph with its nodes where the deformation takes them."""
        nodes, step = list(graph.nodes), np.array(world(self.voxel_size), float)
        corner = np.array(self.total.offset, float)
        # Positions are those of voxels' centres; nodes count from the corner of the first voxel.
        places = [(node.location - corner) / step - 0.5 for node in nodes]
        moved = (deformed_points(self.whole, places, self.voxel_size) + 0.5) * step + corner
        spec = graph.spec.copy()
        spec.roi = graph.spec.roi.union(roi)
        nodes = [gp.Node(node.id, at) for node, at in zip(nodes, moved, strict=True)]
        return gp.Graph(nodes, list(graph.edges), spec).crop(roi)

    def _positions(self, seed: int, shape: Sequence[int]) -> np.ndarray:
        rng = np.random.default_rng(seed)
        zoom = rng.uniform(1 - self.augment.scale, 1 + self.augment.scale)
        equal = _axes_as_long_as_x(self.voxel_size)
        return deformed_positions(
            rng,
            shape,
            voxel_size=self.voxel_size,
            spacing_nm=self.augment.control_point_nm,
            jitter_nm=self.augment.jitter_nm,
            angle=rng.uniform(0, 2 * np.pi),
            scale=[zoom if axis in equal else 1.0 for axis in range(3)],
        )


class Gamma(gp.BatchFilter):
    """Raise intensities to a random power, as other stains and detectors would.

    Parameters
    ----------
    array : gunpowder.ArrayKey
        Intensities 0..1.
    largest : float
        Largest logarithm of the power, to either side.
    """

    def __init__(self, array: gp.ArrayKey, largest: float):
        self.array = array
        self.largest = largest

    def setup(self):
        self.enable_autoskip()
        self.updates(self.array, self.spec[self.array])

    def skip_node(self, request):
        return self.largest == 0

    def process(self, batch, request):
        array = batch[self.array]
        power = np.float32(np.exp(random.uniform(-self.largest, self.largest)))
        array.data = np.clip(array.data, 0, 1) ** power


class Blur(gp.BatchFilter):
    """Blur half of the samples by a random sigma, as other microscopes would.

    Parameters
    ----------
    array : gunpowder.ArrayKey
    largest : float
        Largest sigma, in voxels of the shortest axis.
    """

    def __init__(self, array: gp.ArrayKey, largest: float):
        self.array = array
        self.largest = largest

    def setup(self):
        self.enable_autoskip()
        self.updates(self.array, self.spec[self.array])

    def skip_node(self, request):
        return self.largest == 0 or random.random() < 0.5

    def process(self, batch, request):
        array = batch[self.array]
        size = np.asarray(array.spec.voxel_size, float)
        sigma = random.uniform(0, self.largest) * size.min() / size
        array.data = ndimage.gaussian_filter(array.data, sigma)
