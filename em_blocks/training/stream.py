"""Batches of a setup: the gunpowder graph, asked sample by sample."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import gunpowder as gp
import numpy as np

from em_blocks.errors import GeometryError
from em_blocks.models import truth
from em_blocks.models.config import SetupConfig
from em_blocks.models.schedules import scheduled
from em_blocks.training.data.graph import (
    LABELS,
    RAW,
    SYNAPSES,
    largest_read,
    location,
    sample_graph,
    world,
)
from em_blocks.training.data.points import count_inside, offset_nm, sites_of
from em_blocks.training.data.samples import Sample, draw_batch, prefetch
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.data.targets import HeadTargets, needs_points


class BatchStream:
    """Endless augmented batches; batch i depends on the seed and i alone.

    Parameters
    ----------
    config : SetupConfig
    sources : sequence of TrainingData
        All with synapses if a head learns them.
    context : (3,) ints
        Voxels of raw that the network needs beyond its output, per side.
    """

    def __init__(
        self,
        config: SetupConfig,
        sources: Sequence[TrainingData],
        context: Sequence[int],
    ):
        self.config = config.training
        self.keys = {"raw": RAW, "labels": LABELS}
        heads, size_nm = config.heads, config.voxel_size
        targets = [
            HeadTargets(name, head, size_nm, {truth.LABELS: LABELS}, SYNAPSES)
            for name, head in heads.items()
        ]
        for node in targets:
            self.keys |= node.arrays
        self.has_synapses = any(map(needs_points, heads.values()))
        self.locations = [location(data, config.voxel_size) for data in sources]
        self.graph = sample_graph(
            sources,
            voxel_size=config.voxel_size,
            augment=self.config.augment,
            normalization=config.normalization,
            targets=targets,
            locations=self.locations,
        )
        size, output = world(config.voxel_size), gp.Coordinate(self.config.output_shape)
        sides = np.max([context, *(head.reach(size_nm) for head in heads.values())], axis=0)
        self._check_sizes(config, sources, output + gp.Coordinate(sides) * 2)
        self.request = gp.BatchRequest()
        for key in self.keys.values():
            shape = output + gp.Coordinate(context) * 2 if key == RAW else output
            self.request.add(key, shape * size)
        if self.has_synapses:
            self.request.add(SYNAPSES, output * size)

    def batches(self, first: int, last: int) -> Iterator[Sample]:
        """Batches `first` ... `last` - 1: "raw" (n, 1, z, y, x), the rest (n, ..., z, y, x).

        But "sites" (n,) and, where synapses are learnt, "pairs" (n, most of a sample, 2, 3), filled
        up with nan.
        """
        with gp.build(self.graph):
            yield from prefetch(self._batch, first, last)

    def _check_sizes(self, config: SetupConfig, sources, shape: Sequence[int]) -> None:
        needed = largest_read(shape, config.voxel_size, self.config.augment)
        for data in sources:
            size = tuple(last - first for first, last in zip(data.begin, data.end, strict=True))
            if any(n > s for n, s in zip(needed, size, strict=True)):
                raise GeometryError(
                    f"{data.name}: a sample can need {needed} voxels (zyx) with its context and "
                    f"its deformation, but the used box has only {size}. Lower "
                    "training.output_shape or training.augment, or use a larger box."
                )

    def _batch(self, iteration: int) -> Sample:
        config = self.config
        batch = draw_batch(
            self._draw,
            seed=config.seed,
            iteration=iteration,
            batch_size=config.batch_size,
            min_labelled=config.min_labelled,
            reject_probability=scheduled(config.reject_probability, iteration),
        )
        return batch | {"raw": batch["raw"][:, None]}

    def _draw(self, seed: int, needs_site: bool) -> Sample:
        for place in self.locations:
            place.p_nonempty = float(needs_site)
        request = gp.BatchRequest(random_seed=seed)
        for key, spec in self.request.items():
            request[key] = copy.deepcopy(spec)
        batch = self.graph.request_batch(request)
        # Mirrors are views with negative strides, which torch does not take.
        sample = {name: np.ascontiguousarray(batch[key].data) for name, key in self.keys.items()}
        return sample | (self._sites(batch) if self.has_synapses else {"sites": np.array(0)})

    def _sites(self, batch: gp.Batch) -> Sample:
        """Postsynaptic sites in the labels, and all pairs (n, 2, 3) that have a site there.

        Pairs are (pre, post), nm (z, y, x) from the corner of the labels.
        """
        roi = batch[LABELS].spec.roi
        pairs = np.stack(sites_of(batch[SYNAPSES]), axis=1) - offset_nm(roi)
        return {"sites": np.array(count_inside(batch[SYNAPSES], roi)), "pairs": pairs}
