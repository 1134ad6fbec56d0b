"""Random changes of samples, as gunpowder nodes: places, then intensities."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import gunpowder as gp
import numpy as np
from scipy import ndimage

from em_blocks.kernels.transforms.deform import deformed_points, deformed_positions, sample
from em_blocks.models.config import AugmentConfig
from em_blocks.training.data.changes.defects import GreyOfSections, MissingParts
from em_blocks.training.data.changes.sections import MOST_REMOVED, MoveSections
from em_blocks.training.data.keys import RAW
from em_blocks.training.data.units import UNITS_PER_NM, world


def largest_read(
    shape: Sequence[int], voxel_size: Sequence[float], augment: AugmentConfig
) -> tuple[int, int, int]:
    """Compute the voxels (z, y, x) that a sample of `shape` can need once deformed and transposed."""
    if augment.removed_sections:
        shape = (shape[0] + MOST_REMOVED, *shape[1:])
    if augment.misaligned:
        shifts = _shifts(voxel_size, augment)
        shape = (shape[0], *(n + 2 * most for n, most in zip(shape[1:], shifts, strict=True)))
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


def mirror_and_transpose(voxel_size: Sequence[float]) -> gp.SimpleAugment:
    """Mirror every axis; exchange only axes along which voxels are equally long.

    Exchanging others would show the network tissue of a shape that does not
    exist, and asks for regions outside the volume.
    """
    return _Symmetries(transpose_only=_axes_as_long_as_x(voxel_size))


class _Symmetries(gp.SimpleAugment):
    """Keep sites beyond the sample: gunpowder drops them, and with a partner goes its pair."""

    def process(self, batch, request):
        for graph in batch.graphs.values():
            graph.remove_node = lambda node: None  # of this graph alone, and until it was turned
        super().process(batch, request)
        for graph in batch.graphs.values():
            del graph.remove_node


def _axes_as_long_as_x(voxel_size: Sequence[float]) -> list[int]:
    return [axis for axis in range(3) if voxel_size[axis] == voxel_size[2]]


def moved_sections(
    voxel_size: Sequence[float], augment: AugmentConfig
) -> list[gp.BatchFilter]:
    """Make the node that shifts and loses sections; none if the config asks for neither.

    gunpowder derives seeds from the number of nodes: other trainings must have none more.
    """
    if not (augment.misaligned or augment.removed_sections):
        return []
    largest = _shifts(voxel_size, augment)
    return [MoveSections(augment.misaligned, augment.removed_sections, largest)]


def _shifts(voxel_size: Sequence[float], augment: AugmentConfig) -> list[int]:
    """Return the largest shifts of sections, voxels (y, x)."""
    return [int(augment.misalignment_nm // size) for size in voxel_size[1:]]


def section_defects(augment: AugmentConfig) -> list[gp.BatchFilter]:
    """Make the nodes that change the grey values of single sections; none that does nothing."""
    made: list[gp.BatchFilter] = []
    if augment.grey_of_sections:
        made.append(GreyOfSections(
            RAW, augment.grey_of_sections, contrast=augment.contrast, brightness=augment.brightness,
            gamma=augment.gamma,
        ))
    if augment.missing_parts:
        width = augment.missing_part_nm * UNITS_PER_NM
        made.append(MissingParts(RAW, augment.missing_parts, width))
    return made


def intensity_changes(augment: AugmentConfig) -> list[gp.BatchFilter]:
    contrast, brightness = augment.contrast, augment.brightness
    return [
        Gamma(RAW, augment.gamma),
        Blur(RAW, augment.blur),
        gp.DefectAugment(
            RAW, prob_missing=augment.missing_sections, prob_low_contrast=augment.faint_sections
        ),
        gp.IntensityAugment(RAW, 1 - contrast, 1 + contrast, -brightness, brightness, clip=False),
        gp.NoiseAugment(RAW, clip=False, var=augment.noise**2, p=0.5),
        *section_defects(augment),
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
        """Return the graph with its nodes where the deformation takes them."""
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
        angle = rng.uniform(0, 2 * np.pi)
        # Decided by numbers of their own: those of older trainings stay the same.
        rotated, scaled = np.random.default_rng((seed, 1)).random(2)
        angle = angle if rotated < self.augment.rotated else 0.0
        zoom = zoom if scaled < self.augment.scaled else 1.0
        equal = _axes_as_long_as_x(self.voxel_size)
        return deformed_positions(
            rng,
            shape,
            voxel_size=self.voxel_size,
            spacing_nm=self.augment.control_point_nm,
            jitter_nm=self.augment.jitter_nm,
            angle=angle,
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
