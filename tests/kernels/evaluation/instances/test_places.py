"""Places of errors: a voxel of the object, the same one in any blocks."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from em_blocks.geometry import Box
from em_blocks.kernels.evaluation.instances.errors import Error, find_causes, find_errors
from em_blocks.kernels.evaluation.instances.pairs import extents, measure_pairs
from em_blocks.kernels.evaluation.instances.places import Places, Query, nearest_voxel
from em_blocks.kernels.evaluation.object_matching import match_objects, overlaps

SIZE = (40.0, 4.6, 4.6)
SHAPE = (3, 5, 8)


def boxes(shape, block):
    """All blocks of a shape."""
    for corner in itertools.product(*(range(0, n, b) for n, b in zip(shape, block))):
        yield Box.between(corner, [min(n, c + b) for n, c, b in zip(shape, corner, block)])


def located(prediction, truth, known=None, block=None, iou=0.75):
    """Errors with their ids and places."""
    pairs = measure_pairs(prediction=prediction, truth=truth, known=known, offset=(0, 0, 0))
    found = overlaps(pairs.table())
    scores = match_objects(found, iou=iou)
    places = Places(pairs, found, extents(pairs, "truth"), extents(pairs, "prediction"))
    for error in find_errors(found, scores, find_causes(found, scores)):
        query = places.query(error)
        nearest = min(filter(None, (
            nearest_voxel(
                query, prediction=prediction[box.slices], truth=truth[box.slices],
                known=None if known is None else known[box.slices], box=box, voxel_size=SIZE,
            ) for box in boxes(truth.shape, block or truth.shape)
        )))
        yield (error, found.truth_ids[list(error.truth)].tolist(),
               found.prediction_ids[list(error.prediction)].tolist(), nearest.voxel)


LABELS = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 3))


@settings(max_examples=30)
@given(LABELS, LABELS, hnp.arrays(bool, SHAPE))
def test_a_place_is_a_known_voxel_of_the_object_and_does_not_depend_on_the_blocks(
    prediction, truth, known
):
    whole = list(located(prediction, truth, known))
    for error, true, predicted, index in whole:
        assert known[index]
        if error.kind in ("missed", "inexact"):
            assert truth[index] == true[0]
        elif error.kind == "false":
            assert prediction[index] == predicted[0]
        elif error.kind == "split":
            assert (truth[index], prediction[index]) == (true[0], predicted[1])
        else:
            assert (truth[index], prediction[index]) == (true[1], predicted[0])
    for block in ((1, 2, 3), (3, 5, 2)):
        assert list(located(prediction, truth, known, block)) == whole


def test_a_missed_object_is_where_its_middle_is_also_of_a_bent_one():
    truth = np.zeros((1, 5, 7), np.uint8)
    truth[0, 0, 1:6] = truth[0, :, 1] = truth[0, :, 5] = 4  # a bow: its centre is outside
    (found,) = located(np.zeros_like(truth), truth)
    assert found[0].kind == "missed" and found[1:] == ([4], [], (0, 0, 3))


@pytest.mark.parametrize("swapped", [False, True])
def test_a_seam_is_where_the_smaller_part_faces_the_larger(swapped):
    parts, whole = np.zeros((2, 1, 3, 9), np.uint8)
    parts[0, 1, 0:4], parts[0, 1, 4:9], whole[0, 1] = 7, 8, 5
    prediction, truth = (whole, parts) if swapped else (parts, whole)
    (found,) = located(prediction, truth)
    # 8 is larger, so the place is the voxel of 7 that is nearest to it.
    assert found[0].kind == ("merge" if swapped else "split") and found[3] == (0, 1, 3)
    assert found[1:3] == (([8, 7], [5]) if swapped else ([5], [8, 7]))


def test_nearest_is_measured_in_nm():
    """One section away is 40 nm, eight voxels in the section 36.8 nm."""
    labels = np.zeros((3, 1, 9), np.uint8)
    labels[2, 0, 0] = labels[1, 0, 8] = 1
    box = Box((0, 0, 0), labels.shape)
    query = Query(None, 1, np.array([1.0, 0.0, 0.0]), box)
    found = nearest_voxel(query, prediction=labels, truth=labels, known=None, box=box, voxel_size=SIZE)
    assert found.voxel == (1, 0, 8) and np.isclose(found.distance, 36.8**2)
    elsewhere = Query(None, 2, query.target, box)
    assert nearest_voxel(elsewhere, prediction=labels, truth=labels, known=None, box=box,
                         voxel_size=SIZE) is None


def test_of_equally_near_voxels_the_first_is_taken():
    labels = np.ones((1, 2, 2), np.uint8)
    (found,) = located(np.zeros_like(labels), labels)
    assert found[3] == (0, 0, 0) and isinstance(found[0], Error)
