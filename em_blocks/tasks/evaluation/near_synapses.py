"""The neurons around the synapses of a block, and no others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from em_blocks.geometry import BlockGrid, Box, Triple
from em_blocks.kernels.evaluation.connectivity import (
    Contacts,
    Credits,
    contact_zones,
    credit_synapses,
)
from em_blocks.kernels.evaluation.cremi_marks import without_marks
from em_blocks.volumes.labels import Labels


class NearNeurons(NamedTuple):
    """Neurons near the visited voxels of a block.

    Attributes
    ----------
    neurons : (z, y, x) array
        The box of visited voxels and the reach around it.
    corner : Box
        The box of visited voxels, in `neurons`.
    visited : Box
        The same box, in the block.
    """

    neurons: np.ndarray
    corner: Box
    visited: Box

    def credit(self, synapses: np.ndarray, shifts: np.ndarray) -> Credits:
        return credit_synapses(
            synapses[self.visited.slices], self.neurons, shifts, corner=self.corner.offset
        )

    def contacts(self, shifts: np.ndarray) -> Contacts:
        return contact_zones(
            self.neurons, shifts, corner=self.corner.offset, shape=self.corner.shape
        )


def read_neurons_near(
    visited: np.ndarray, labels: Labels, neurons: np.ndarray, box: Box, context: Triple
) -> NearNeurons:
    """Read the voxels within reach of visited voxels of a block.

    The voxels around a block lie in other chunks, with many times as many voxels as are needed.
    So a chunk is only read for a synapse that reaches it; elsewhere there is 0.

    Parameters
    ----------
    visited : (z, y, x) bool array
        Voxels of the block whose surroundings are needed.
    labels : Labels
        The volume of neurons.
    neurons : (z, y, x) array
        Its ids in the block.
    box : Box
        The block.
    context : (3,) int
        Voxels (z, y, x) that the reach is long.
    """
    inner = _bounds(visited).shift(box.offset)
    grown = inner.grow(context).intersect(labels.box)
    around, known = np.zeros(grown.shape, labels.dtype), grown.intersect(box)
    around[known.relative_to(grown).slices] = neurons[known.relative_to(box).slices]
    for chunk in BlockGrid(labels.frame, labels.shape, labels.chunk_shape).within(grown):
        part = chunk.write_box.intersect(grown)
        near = part.grow(context).intersect(box).relative_to(box)
        if not box.contains(part) and visited[near.slices].any():
            around[part.relative_to(grown).slices] = read_ids(labels, part)
    return NearNeurons(around, inner.relative_to(grown), inner.relative_to(box))


def _bounds(mask: np.ndarray) -> Box:
    """The smallest box that holds all that is true; empty at the first voxel if nothing is."""
    lines = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not len(lines[0]):
        return Box((0, 0, 0), (0, 0, 0))
    return Box.between([line[0] for line in lines], [line[-1] + 1 for line in lines])


def read_ids(labels: Labels, box: Box) -> np.ndarray:
    """Ids of a box, 0 where CREMI's marks stand."""
    return without_marks(labels.read(box))
