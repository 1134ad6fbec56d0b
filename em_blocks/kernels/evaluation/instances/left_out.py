"""Which objects are left out: cut by the border, or mostly where truth is not known."""

from __future__ import annotations

from typing import Literal

import numpy as np

from em_blocks.geometry import Triple
from em_blocks.kernels.evaluation.instances.pairs import Extents
from em_blocks.kernels.evaluation.object_matching import LeftOut, Overlaps

BorderRule = Literal["count", "leave-out"]
"""Count: an object that touches the border of the region is one like any other. Leave-out: a true one
does not count, nor does what matches it or lies mostly in it; a predicted one counts if it matches."""


def find_left_out(
    found: Overlaps, truth: Extents, prediction: Extents, *, shape: Triple, border: BorderRule
) -> LeftOut:
    """Return which objects are left out.

    An object that has more than half of its voxels where truth is not known counts only if it
    matches: what is seen of it may not be enough to be recognised. So does a predicted object that
    has more than half of its voxels there and in true objects that are left out.

    Parameters
    ----------
    found : Overlaps
    truth, prediction : Extents
        Of all objects.
    shape : (3,) int
        Of the region that is compared; its first voxel is (0, 0, 0).
    """
    truth, prediction = truth_of(found, truth), prediction_of(found, prediction)
    if border == "count":
        cut_truth = np.zeros(len(truth.id), bool)
        cut_prediction = np.zeros(len(prediction.id), bool)
    else:
        cut_truth, cut_prediction = touches(truth, shape), touches(prediction, shape)
    in_cut = np.zeros(len(prediction.id), np.int64)
    of_cut = cut_truth[found.rows]
    np.add.at(in_cut, found.columns[of_cut], found.shared[of_cut])
    unclear = 2 * (in_cut + prediction.ignored) > prediction.voxels + prediction.ignored
    return LeftOut(cut_truth, truth.ignored > truth.voxels, cut_prediction | unclear)


def truth_of(found: Overlaps, truth: Extents) -> Extents:
    """Return the extents of the true objects that are compared."""
    return Extents(*(column[truth.place(found.truth_ids)] for column in truth))


def prediction_of(found: Overlaps, prediction: Extents) -> Extents:
    """Return the extents of the predicted objects that are compared."""
    return Extents(*(column[prediction.place(found.prediction_ids)] for column in prediction))


def touches(objects: Extents, shape: Triple) -> np.ndarray:
    """Return which objects have a voxel at a face of a region that begins at (0, 0, 0)."""
    return ((objects.begin == 0) | (objects.end == np.asarray(shape))).any(axis=1)
