"""Batches of a setup: the gunpowder graph, asked sample by sample."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Mapping, Sequence

import gunpowder as gp
import numpy as np

from em_blocks.models.config import SetupConfig
from em_blocks.models.truth import POST, PRE, Truth
from em_blocks.training.data.augment import largest_read
from em_blocks.training.data.domain import FULL_RANGES, Domain, Range
from em_blocks.training.data.graph import location, sample_graph
from em_blocks.training.data.keys import RAW, SYNAPSES, labels_key, mask_key
from em_blocks.training.data.needs import check_volumes, needs_of
from em_blocks.training.data.points import count_inside, offset_nm, sites_of
from em_blocks.training.data.samples import Sample, SampleBatch, draw_sample, prefetch
from em_blocks.training.data.sampling import Demand
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.data.targets import HeadTargets
from em_blocks.training.data.units import world


class BatchStream:
    """Endless augmented batches; batch i depends on the seed and i alone.

    Parameters
    ----------
    config : SetupConfig
    sources : sequence of TrainingData
        All with the volumes and synapses that heads and sampling need.
    context : (3,) ints
        Voxels of raw that the network needs beyond its output, per side.
    alive : function
        Called before each attempt at a sample.
    """

    def __init__(
        self, config: SetupConfig, sources: Sequence[TrainingData], context: Sequence[int],
        alive: Callable[[], None] = lambda: None,
    ):
        check_volumes(sources, config, "sources")
        self.config, self.voxel_size, self.alive = config.training, config.voxel_size, alive
        needs, heads = needs_of(config), config.heads
        self.labels = {name: labels_key(name) for name in needs.labels}
        self.masks = {name: mask_key(name) for name in needs.masks}
        self.has_synapses = needs.points
        self.classes = frozenset[str]().union(*(data.classes for data in sources))
        targets = [HeadTargets(name, head, config.voxel_size) for name, head in heads.items()]
        self.arrays = {name: key for node in targets for name, key in node.arrays.items()}
        size, output = world(config.voxel_size), gp.Coordinate(self.config.output_shape)
        reaches = (head.reach(config.voxel_size) for head in heads.values())
        sides = gp.Coordinate(np.max([context, *reaches], axis=0))
        read = largest_read(output + sides * 2, config.voxel_size, self.config.augment)
        self.locations = [
            location(data, config.voxel_size, output, _fits(read, data)) for data in sources
        ]
        self.room = min(_room(data, output) for data in sources)
        self.graph = sample_graph(
            sources,
            voxel_size=config.voxel_size,
            augment=self.config.augment,
            normalization=config.normalization,
            intensities=intensities_of(config, sources),
            targets=targets,
            locations=self.locations,
        )
        self.request = gp.BatchRequest()
        self.request.add(RAW, (output + gp.Coordinate(context) * 2) * size)
        for key in (*self.labels.values(), *self.masks.values(), *self.arrays.values()):
            self.request.add(key, output * size)
        if self.has_synapses:
            self.request.add(SYNAPSES, output * size)
        self.roi = self.request[next(iter(self.arrays.values()))].roi

    def batches(self, first: int, last: int) -> Generator[SampleBatch, None, None]:
        """Yield the batches `first` ... `last` - 1."""
        with gp.build(self.graph):
            yield from prefetch(self.batch, first, last)

    def batch(self, iteration: int) -> SampleBatch:
        """Make the batch of an iteration; the graph must be built."""
        return SampleBatch([self._sample(iteration, n) for n in range(self.config.batch_size)])

    def _sample(self, iteration: int, place: int) -> Sample:
        """Draw the sample of a place in a batch; `ConfigError` if none holds what is demanded."""
        entropy = (self.config.seed, iteration, place)
        demand = Demand(
            self.config.used_sampling, iteration, entropy, classes=self.classes, room=self.room
        )
        for chosen in self.locations:
            chosen.p_nonempty = float(demand.site)
        sample = draw_sample(self._draw, demand.accepts, entropy, self.alive)
        if sample is None:
            raise demand.refusal()
        return sample

    def _draw(self, seed: int) -> Sample:
        request = gp.BatchRequest(random_seed=seed)
        for key, spec in self.request.items():
            request[key] = copy.deepcopy(spec)
        batch = self.graph.request_batch(request)
        truth = Truth(
            self.voxel_size, _data(batch, self.labels), _data(batch, self.masks), self._points(batch)
        )
        sites = count_inside(batch[SYNAPSES], self.roi) if self.has_synapses else 0
        return Sample(_contiguous(batch, RAW), truth, _data(batch, self.arrays), sites)

    def _points(self, batch: gp.Batch) -> dict[str, np.ndarray]:
        """Return both sites of the pairs that have one in the labels, nm from their corner."""
        if not self.has_synapses:
            return {}
        pre, post = sites_of(batch[SYNAPSES])
        corner = offset_nm(self.roi)
        return {PRE: pre - corner, POST: post - corner}


def _size(data: TrainingData) -> tuple[int, ...]:
    return tuple(last - first for first, last in zip(data.begin, data.end, strict=True))


def _fits(shape: Sequence[int], data: TrainingData) -> bool:
    """Tell whether a sample that reads `shape` voxels has room in the used box."""
    return all(n <= s for n, s in zip(shape, _size(data), strict=True))


def _room(data: TrainingData, output: Sequence[int]) -> float:
    """Compute the share of an output that the used box fills if it lies within."""
    return math.prod(min(1.0, s / n) for n, s in zip(output, _size(data), strict=True))


def intensities_of(config: SetupConfig, sources: Sequence[TrainingData]) -> Range:
    """Find the stored intensities that augmentation calls 0 and 1: those that the setup is for."""
    if all(data.raw.dtype == np.uint8 for data in sources):
        return FULL_RANGES["uint8"]
    return Domain.of(config).intensities


def _data(batch: gp.Batch, keys: Mapping[str, gp.ArrayKey]) -> dict[str, np.ndarray]:
    return {name: _contiguous(batch, key) for name, key in keys.items()}


def _contiguous(batch: gp.Batch, key: gp.ArrayKey) -> np.ndarray:
    # Mirrors are views with negative strides, which torch does not take.
    return np.ascontiguousarray(batch[key].data)
