"""Where an error is: the voxel of an object that is nearest to a point, found block by block."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from em_blocks.geometry import Box, Nm3, triple
from em_blocks.kernels.evaluation.instances.errors import Error
from em_blocks.kernels.evaluation.instances.pairs import Extents, Pairs
from em_blocks.kernels.evaluation.object_matching import Overlaps


class Query(NamedTuple):
    """Voxels that are asked for.

    Attributes
    ----------
    prediction, truth : int or None
        Only voxels of this predicted and this true object; None: any, and background.
    target : (3,) float array
        Index (z, y, x) to which the voxel shall be near.
    box : Box
        All of these voxels lie in it.
    """

    prediction: int | None
    truth: int | None
    target: np.ndarray
    box: Box


class Nearest(NamedTuple):
    """The nearest voxel (z, y, x) of a query, after its distance^2 (nm^2): the smaller is nearer."""

    distance: float
    voxel: tuple[int, int, int]


class Places:
    """Asks for the places of errors.

    A place is always a voxel of the object, so that a viewer shows it there, also of a bent one:

    * of a missed, false or inexact object, the voxel nearest to its centre;
    * of a split or a merge, the voxel of the second largest part nearest to the centre of the
      largest one: at the seam, where the two face each other.

    Parameters
    ----------
    pairs : Pairs
        Of the whole region.
    found : Overlaps
    truth, prediction : Extents
        Of all objects.
    """

    def __init__(self, pairs: Pairs, found: Overlaps, truth: Extents, prediction: Extents):
        self._pairs = pairs.rows(pairs.counts)
        self._found, self._truth, self._prediction = found, truth, prediction

    def query(self, error: Error) -> Query:
        """Return what to look for."""
        truth = [int(id) for id in self._found.truth_ids[list(error.truth)]]
        prediction = [int(id) for id in self._found.prediction_ids[list(error.prediction)]]
        if error.kind == "split":
            return self._seam([(prediction[n], truth[0]) for n in (0, 1)])
        if error.kind == "merge":
            return self._seam([(prediction[0], truth[n]) for n in (0, 1)])
        objects, id = (self._truth, truth[0]) if truth else (self._prediction, prediction[0])
        row = int(objects.place(np.array(id, np.uint64)))
        box = Box.between(objects.begin[row], objects.end[row])
        predicted, true = (None, id) if truth else (id, None)
        return Query(predicted, true, objects.center[row], box)

    def _seam(self, parts: list[tuple[int, int]]) -> Query:
        largest, second = (self._row(*part) for part in parts)
        target = self._pairs.sums[largest] / self._pairs.voxels[largest]
        box = Box.between(self._pairs.begin[second], self._pairs.end[second])
        return Query(*parts[1], target, box)

    def _row(self, prediction: int, truth: int) -> int:
        """Return the row of a pair; rows are sorted by truth, then prediction."""
        ids = self._pairs.truth
        first, last = (int(np.searchsorted(ids, np.uint64(truth), s)) for s in ("left", "right"))
        return first + int(np.searchsorted(self._pairs.prediction[first:last], np.uint64(prediction)))


def nearest_voxel(
    query: Query, *, prediction: np.ndarray, truth: np.ndarray, known: np.ndarray | None, box: Box,
    voxel_size: Nm3,
) -> Nearest | None:
    """Return the voxel of a block that is nearest to the target of a query; None if it has none.

    Parameters
    ----------
    prediction, truth : (z, y, x) int arrays
        Ids of the block.
    known : (z, y, x) bool array, optional
        Where voxels count. Default: everywhere.
    box : Box
        The voxels of the block.
    voxel_size : (3,) float
        nm (z, y, x).

    Returns
    -------
    Nearest or None
        The first (z slowest) of equally near voxels; so the smallest one of all blocks is the one of
        the whole volume.
    """
    part = query.box.intersect(box)
    inside = part.relative_to(box).slices
    mask = np.ones(part.shape, bool) if known is None else known[inside].copy()
    for labels, id in ((prediction, query.prediction), (truth, query.truth)):
        if id is not None:
            mask &= labels[inside] == id
    index = np.argwhere(mask) + part.offset
    if not len(index):
        return None
    distance = (((index - query.target) * voxel_size) ** 2).sum(axis=1)
    nearest = int(np.argmin(distance))
    return Nearest(float(distance[nearest]), triple(index[nearest].tolist()))
