"""Mirrors and transposes, and what they do to affinities."""

import numpy as np
import pytest

from em_blocks.kernels.segmentation.affinities import affinities
from em_blocks.kernels.transforms.symmetry import (
    Symmetry,
    symmetries,
    undo_affinities,
    undo_vectors,
)

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
    for index, values in undo_affinities(transformed, symmetry, NEIGHBORHOOD):
        inner = known[index] == 1
        np.testing.assert_array_equal(values[inner], expected[index][inner])
        compared[index] |= inner
    np.testing.assert_array_equal(compared, known == 1)


def test_a_neighborhood_that_is_not_closed_is_refused():
    with pytest.raises(ValueError, match="no channel has"):
        undo_affinities(np.zeros((1, 2, 2, 2)), Symmetry(swap_yx=True), [(0, -1, 0)])


def turned_vectors(vectors, symmetry):
    """A field of vectors in the transformed volume, voxel by voxel: what a network would see."""
    shape = vectors.shape[1:]
    images = symmetry.apply(np.arange(np.prod(shape)).reshape(shape))  # where a voxel comes from
    turned = np.empty((3, *images.shape))
    for voxel in np.ndindex(images.shape):
        z, y, x = vectors[(slice(None), *np.unravel_index(images[voxel], shape))]
        y, x = (x, y) if symmetry.swap_yx else (y, x)
        turned[(slice(None), *voxel)] = [
            -v if m else v for v, m in zip((z, y, x), symmetry.mirrored, strict=True)
        ]
    return turned


@pytest.mark.parametrize("symmetry", symmetries(transposes=True), ids=str)
def test_vectors_of_a_transformed_volume_come_back_as_those_of_the_volume(symmetry):
    vectors = np.random.default_rng(2).normal(size=(3, 3, 4, 5))
    turned = turned_vectors(vectors, symmetry)
    kept = turned.copy()
    np.testing.assert_array_equal(undo_vectors(turned, symmetry), vectors)
    np.testing.assert_array_equal(turned, kept)


@pytest.mark.parametrize("symmetry", symmetries(transposes=True), ids=str)
def test_a_vector_leads_to_the_image_of_its_end(symmetry):
    # The law behind: where a vector of the transformed volume leads, the end of the original is.
    shape, start, end = (4, 6, 7), (1, 2, 3), (3, 1, 5)
    marks = np.zeros(shape, int)
    marks[start], marks[end] = 1, 2
    seen = symmetry.apply(marks)
    step = np.argwhere(seen == 2)[0] - np.argwhere(seen == 1)[0]
    field = np.broadcast_to(step.reshape(3, 1, 1, 1).astype(float), (3, *seen.shape))
    found = undo_vectors(field, symmetry)
    assert found.shape == (3, *shape)
    np.testing.assert_array_equal(found[(slice(None), *start)], np.subtract(end, start))
    assert (found == found[:, :1, :1, :1]).all(), "a constant field stays constant"
