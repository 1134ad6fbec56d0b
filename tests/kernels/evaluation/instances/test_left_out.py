"""Objects at the border and in unknown voxels: counted, or left out by a rule."""

import numpy as np
import pytest

from em_blocks.kernels.evaluation.instances.left_out import find_left_out, touches
from em_blocks.kernels.evaluation.instances.pairs import extents, measure_pairs
from em_blocks.kernels.evaluation.object_matching import match_objects, overlaps


def scored(prediction, truth, known=None, border="leave-out", iou=0.5, min_voxels=1):
    """Scores of one row of voxels with an empty one on either side, so that only its ends are cut."""
    prediction, truth, known = (
        None if text is None else np.array([[int(letter) for letter in text]])
        for text in (prediction, truth, known)
    )
    volumes = [np.pad(np.stack([np.zeros_like(v), v, np.zeros_like(v)]), [(0, 0), (1, 1), (0, 0)])
               for v in (prediction, truth)]
    seen = None if known is None else np.broadcast_to(known.astype(bool), volumes[0].shape)
    pairs = measure_pairs(prediction=volumes[0], truth=volumes[1], known=seen, offset=(0, 0, 0))
    found = overlaps(pairs.table(), min_voxels=min_voxels)
    left_out = find_left_out(
        found, extents(pairs, "truth"), extents(pairs, "prediction"), shape=volumes[0].shape,
        border=border,
    )
    return match_objects(found, iou=iou, left_out=left_out)


def counts(*arguments, **options):
    scores = scored(*arguments, **options)
    return scores.tp, scores.fp, scores.fn


@pytest.mark.parametrize(
    ("prediction", "truth", "all_counted", "left_out"),
    [
        ("111002220", "111002220", (2, 0, 0), (1, 0, 0)),  # a cut pair
        ("000002220", "111002220", (1, 0, 1), (1, 0, 0)),  # a cut true one is missed
        ("111002220", "000002220", (1, 1, 0), (1, 0, 0)),  # a cut false one
        ("111000000", "011100000", (1, 0, 0), (1, 0, 0)),  # cut, but of a whole true object
        ("012200000", "111000000", (0, 2, 1), (0, 1, 0)),  # a piece of a cut one; 2 lies outside
        ("001110000", "111000000", (0, 1, 1), (0, 1, 0)),  # a third of it is in a cut one
        ("001111000", "111100000", (0, 1, 1), (0, 1, 0)),  # half of it is in a cut one
        ("001110000", "111100000", (0, 1, 1), (0, 0, 0)),  # two thirds of it are
        ("000000111", "000000111", (1, 0, 0), (0, 0, 0)),  # the other end
    ],
)
def test_the_border_rule(prediction, truth, all_counted, left_out):
    assert counts(prediction, truth, border="count") == all_counted
    assert counts(prediction, truth) == left_out


def test_objects_touch_any_face():
    labels = np.zeros((3, 4, 5), np.uint8)
    for id, place in enumerate([(0, 1, 1), (2, 1, 3), (1, 0, 2), (1, 3, 2), (1, 2, 0), (1, 1, 4)], 1):
        labels[place] = id
    labels[1, 2, 2] = 9
    pairs = measure_pairs(prediction=labels, truth=labels, known=None, offset=(0, 0, 0))
    assert touches(extents(pairs, "truth"), labels.shape).tolist() == [True] * 6 + [False]


@pytest.mark.parametrize("border", ["count", "leave-out"])
@pytest.mark.parametrize(
    ("prediction", "truth", "known", "wanted"),
    [
        ("0111100000", "0000000000", "1100011111", (0, 0, 0)),  # three of four voxels are unknown
        ("0111100000", "0000000000", "1110011111", (0, 1, 0)),  # half of them
        ("0000000000", "0111100000", "1100011111", (0, 0, 0)),
        ("0000000000", "0111100000", "1110011111", (0, 0, 1)),
        ("0111100000", "0111100000", "1100011111", (1, 0, 0)),  # what is known of it matches
        ("0111100000", "0111100000", "1000001111", (0, 0, 0)),  # nothing is known of it
        ("0111100000", "0001111000", "1111001111", (1, 0, 0)),  # the IoU of known voxels: 1 of 4
    ],
)
def test_unknown_voxels_do_not_count_and_objects_mostly_in_them_only_if_they_match(
    border, prediction, truth, known, wanted
):
    iou = 0.25 if truth == "0001111000" else 0.5
    assert counts(prediction, truth, known, border=border, iou=iou) == wanted


def test_small_objects_are_neither():
    assert counts("0110000000", "0000000110", border="count", min_voxels=3) == (0, 0, 0)
