"""Distances of clefts against distance transforms of the whole volume."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from em_blocks.kernels.evaluation.cleft_distances import (
    CleftVoxels,
    nearest_distances,
    score_clefts,
)

VOXEL_SIZE = (40.0, 4.6, 4.6)
MASKS = hnp.arrays(bool, (4, 6, 7), elements=st.sampled_from([False, False, True]))


def slow_distances(mask, other):
    """From every voxel of `mask` to the other one, by the transform of the whole volume."""
    return ndimage.distance_transform_edt(~other, sampling=VOXEL_SIZE)[mask]


def blobs(seed, shape=(12, 40, 44)):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), (1, 3, 3))
    return noise > np.quantile(noise, 0.93)


@given(MASKS, MASKS)
def test_distances_are_those_of_a_distance_transform(mask, other):
    found = nearest_distances(CleftVoxels.of(mask), CleftVoxels.of(other), VOXEL_SIZE)
    if other.any():
        np.testing.assert_allclose(found, slow_distances(mask, other), rtol=1e-12)
    else:
        assert len(found) == mask.sum() and np.isinf(found).all()


@settings(max_examples=30)
@given(MASKS, MASKS, st.integers(0, 4), st.integers(0, 7))
def test_voxels_found_in_parts_give_the_same_distances(mask, other, z, x):
    parts = [np.s_[:z, :, :x], np.s_[:z, :, x:], np.s_[z:, :, :x], np.s_[z:, :, x:]]
    corners = [(0, 0, 0), (0, 0, x), (z, 0, 0), (z, 0, x)]
    whole, cut = (CleftVoxels.of(other), CleftVoxels.concatenate([
        CleftVoxels.of(other[part], corner) for part, corner in zip(parts, corners, strict=True)
    ]))
    found = CleftVoxels.of(mask)
    np.testing.assert_array_equal(
        nearest_distances(found, cut, VOXEL_SIZE), nearest_distances(found, whole, VOXEL_SIZE)
    )


def test_statistics_are_over_all_voxels_of_both_sides():
    predicted, true = blobs(0), blobs(1)
    found = score_clefts(prediction=CleftVoxels.of(predicted), truth=CleftVoxels.of(true),
                         voxel_size=VOXEL_SIZE, far_nm=40)
    for side, mask, other in (
        (found.false_positives, predicted, true), (found.false_negatives, true, predicted)
    ):
        distances = slow_distances(mask, other)
        assert side.count == mask.sum() and side.far == (distances > 40).sum() > 10
        np.testing.assert_allclose(
            side[2:], [distances.mean(), distances.std(), distances.max(), np.median(distances)]
        )
    assert found.score == (found.false_positives.mean + found.false_negatives.mean) / 2


def test_inner_voxels_of_clefts_are_no_border():
    mask = np.zeros((7, 8, 9), bool)
    mask[1:6, 1:6, 1:6] = True
    assert CleftVoxels.of(mask).border.sum() == 5**3 - 3**3


@pytest.mark.parametrize("empty", ["truth", "prediction", "both"])
def test_without_clefts_there_are_no_distances(empty):
    some, none = CleftVoxels.of(np.ones((1, 2, 3), bool)), CleftVoxels.of(np.zeros((1, 2, 3), bool))
    found = score_clefts(
        truth=none if empty in ("truth", "both") else some,
        prediction=none if empty in ("prediction", "both") else some, voxel_size=VOXEL_SIZE,
    )
    assert found.score is None
    far = {"truth": (6, 0), "prediction": (0, 6), "both": (0, 0)}[empty]
    for side, n in zip(found[:2], far, strict=True):
        assert side == (n, n, None, None, None, None)
    assert len(CleftVoxels.concatenate([]).places) == 0
