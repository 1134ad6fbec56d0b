"""Labels that lie beside the edges of their image are found, and by how much."""

import numpy as np
import pytest

from em_blocks.kernels.evaluation.edge_shift import edge_shift


def discs(shape=(3, 80, 90), seed=4):
    """Labels of discs, and a noisy image in which they are dark."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, "u1")
    y, x = np.indices(shape[1:])
    for section in labels:
        for _ in range(6):
            at = rng.uniform(15, shape[1] - 15), rng.uniform(15, shape[2] - 15)
            section[np.hypot(y - at[0], x - at[1]) < rng.uniform(5, 9)] = 2
    return labels, 180 - 50 * labels + rng.normal(0, 8, shape)


@pytest.mark.parametrize("shift", [(0, 0), (5, -7), (-10, 3)])
def test_the_shift_of_labels_against_edges_is_found(shift):
    labels, raw = discs()
    moved = np.roll(labels, (-shift[0], -shift[1]), axis=(1, 2))
    found = edge_shift(raw, moved)
    assert np.abs(np.subtract(found.shift, shift)).max() <= 1
    assert (found.gain > 1.15) == (shift != (0, 0))
    assert (found.contrast > 2) == (shift == (0, 0))


def test_without_borders_or_edges_nothing_can_be_said():
    labels, raw = discs()
    assert edge_shift(raw, np.zeros_like(labels)) is None
    assert edge_shift(np.full(labels.shape, 7), labels) is None


def test_no_shift_leaves_a_small_section():
    labels, raw = discs((1, 44, 44), seed=1)
    assert max(map(abs, edge_shift(raw, labels, reach=100).shift)) <= 11
