"""Mirrors and transposes, and what they do to affinities."""

import numpy as np
import pytest

from em_blocks.kernels.affinities import affinities
from em_blocks.kernels.symmetry import Symmetry, symmetries, undo_affinities

NEIGHBORHOOD = [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (-3, 0, 0), (0, -2, 0), (0, 0, -2)]


def test_there_are_eight_mirrors_and_sixteen_with_transposes():
    values = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    for transposes, n in ((False, 8), (True, 16)):
        images = {s.apply(values).tobytes() for s in symmetries(transposes=transposes)}
        assert len(images) == n


@pytest.mark.parametrize("symmetry", symmetries(transposes=True), ids=str)
def test_undo_inverts_apply(symmetry):
    values = np.random.default_rng(0).random((2, 4, 5, 6))
    np.testing.assert_array_equal(symmetry.undo(symmetry.apply(values)), values)


@pytest.mark.parametrize("symmetry", symmetries(transposes=True), ids=str)
def test_affinities_of_transformed_labels_come_back_as_those_of_the_labels(symmetry):
    labels = np.random.default_rng(1).integers(1, 4, (5, 6, 7)).astype(np.uint64)
    expected, known = affinities(labels, NEIGHBORHOOD)
    transformed = affinities(np.ascontiguousarray(symmetry.apply(labels)), NEIGHBORHOOD).values
    compared = np.zeros(expected.shape, bool)
    for channel, slices, values in undo_affinities(transformed, symmetry, NEIGHBORHOOD):
        inner = known[(channel, *slices)] == 1
        np.testing.assert_array_equal(values[inner], expected[(channel, *slices)][inner])
        compared[(channel, *slices)] |= inner
    np.testing.assert_array_equal(compared, known == 1)


def test_a_neighborhood_that_is_not_closed_is_refused():
    with pytest.raises(ValueError, match="no channel has"):
        undo_affinities(np.zeros((1, 2, 2, 2)), Symmetry(swap_yx=True), [(0, -1, 0)])
