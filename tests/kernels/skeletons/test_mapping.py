"""Sites take the nearest skeleton of their segment."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.skeletons.mapping import Nodes, SkeletonIndex, without_noise
from em_blocks.kernels.synapses.table import TOO_FAR, UNMAPPED


def nodes_of(rows):
    """Nodes from (position, skeleton, segment, anchor)."""
    position, skeleton, segment, anchor = zip(*rows) if rows else ((), (), (), ())
    return Nodes(
        np.array(position, float).reshape(-1, 3), np.array(skeleton, np.int64),
        np.array(segment, np.int64), np.array(anchor, bool),
    )


def slow_skeleton(rows, position, segment, noise_nodes, bound):
    """One site: count, filter, and measure every node."""
    candidates = []
    for skeleton in {row[1] for row in rows}:
        here = [row for row in rows if row[1] == skeleton and row[2] == segment]
        traced = [row for row in here if not row[3]]
        if segment > 0 and (len(traced) > noise_nodes or len(here) > len(traced)):
            candidates += here
    if not candidates:
        return UNMAPPED
    near = [(((np.array(row[0]) - position) ** 2).sum(), row[1]) for row in candidates]
    squared, skeleton = min(near)
    return TOO_FAR if np.sqrt(squared) > bound else skeleton


# A coarse lattice of non-cubic cells: many equal distances and shared points.
points = st.tuples(*(st.integers(0, 4).map(lambda i, v=v: 400 + i * v) for v in (40.0, 4.6, 4.6)))
rows = st.lists(st.tuples(points, st.integers(1, 3), st.integers(-1, 3), st.booleans()), max_size=20)
sites = st.lists(st.tuples(points, st.integers(-1, 3)), max_size=6)


@given(rows, sites, st.integers(0, 3), st.sampled_from([0.0, 9.2, 41.0, np.inf]))
def test_every_site_takes_the_nearest_candidate(rows, sites, noise_nodes, bound):
    index = SkeletonIndex(without_noise(nodes_of(rows), noise_nodes=noise_nodes), max_distance_nm=bound)
    positions = np.array([position for position, _ in sites]).reshape(-1, 3)
    segments = np.array([segment for _, segment in sites], np.int64)
    expected = [slow_skeleton(rows, p, s, noise_nodes, bound) for p, s in sites]
    assert index.skeletons_at(positions, segments).tolist() == expected
    # A second question, from another order of sites, finds the same trees.
    assert index.skeletons_at(positions[::-1], segments[::-1]).tolist() == expected[::-1]


def found(rows, position, segment=7, *, noise_nodes=0, bound=np.inf):
    index = SkeletonIndex(without_noise(nodes_of(rows), noise_nodes=noise_nodes), max_distance_nm=bound)
    return int(index.skeletons_at([position], np.array([segment]))[0])


def test_a_nearer_skeleton_in_another_segment_is_no_candidate():
    rows = [((400, 50, 50), 1, 8, False), ((440, 80, 80), 2, 7, False)]
    assert found(rows, (400, 50, 50)) == 2


def test_a_site_that_is_too_far_says_so_and_one_without_candidates_is_unmapped():
    rows = [((400, 50, 50), 1, 7, False)]
    assert found(rows, (440, 50, 50), bound=40) == 1
    assert found(rows, (441, 50, 50), bound=40) == TOO_FAR
    assert found(rows, (400, 50, 50), segment=9, bound=40) == UNMAPPED


def test_background_and_unmapped_sites_have_no_candidates():
    rows = [((400, 50, 50), 1, 0, False), ((400, 50, 50), 2, -1, True)]
    assert found(rows, (400, 50, 50), segment=0) == found(rows, (400, 50, 50), segment=-1) == UNMAPPED


@pytest.mark.parametrize(("n", "anchor", "expected"), [(1, False, 2), (2, False, 2), (3, False, 1),
                                                      (1, True, 1)])
def test_a_skeleton_with_few_nodes_is_noise_unless_a_true_synapse_anchors_it(n, anchor, expected):
    rows = [((400, 50, 50 + i), 1, 7, False) for i in range(n)]
    rows += [((400, 90, 90 + i), 2, 7, False) for i in range(9)]
    if anchor:
        rows.append(((400, 50, 50), 1, 7, True))
    assert found(rows, (400, 50, 50), noise_nodes=2) == expected


def test_no_neighbour_of_noise_is_skipped():
    """Dropping candidates one after the other must not jump over the next one."""
    rows = [((400, 50, 50 + i), i, 7, False) for i in range(1, 7)]
    assert found(rows, (400, 50, 50), noise_nodes=1) == UNMAPPED
