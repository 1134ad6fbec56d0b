"""Clefts on the lines between sites, and the connectors of a cleft."""

import itertools
from collections import Counter
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from em_blocks.kernels.synapses.clefts import clefts_on_lines, connectors, two_means

SHAPE, CORNER = (5, 9, 11), (20, 100, 7)


def slow_line(a, b):
    """Voxels of a line by exact fractions."""
    steps = max(1, *(abs(q - p) for p, q in zip(a, b)))
    return [tuple(floor(p + Fraction(k * (q - p), steps) + Fraction(1, 2)) for p, q in zip(a, b))
            for k in range(steps + 1)]


def slow_cleft(clefts, line):
    votes = Counter(int(clefts[voxel]) for voxel in line if clefts[voxel])
    return min(votes, key=lambda i: (-votes[i], i)) if votes else 0


clefts = arrays(np.uint64, SHAPE, elements=st.sampled_from([0, 0, 4, 9, 2]))
values = arrays(np.uint8, SHAPE)
voxels = st.tuples(*[st.integers(0, n - 1) for n in SHAPE])


@given(clefts, values, st.lists(st.tuples(voxels, voxels), max_size=5))
def test_the_line_votes(clefts, values, lines):
    ends = np.array(lines).reshape(-1, 2, 3)
    found = clefts_on_lines(clefts, values, ends[:, 0] + CORNER, ends[:, 1] + CORNER, corner=CORNER)
    expected = [slow_line(a, b) for a, b in ends.tolist()]
    assert found.cleft.tolist() == [slow_cleft(clefts, line) for line in expected]
    assert found.score.tolist() == [max(int(values[v]) for v in line) for line in expected]


@given(voxels, voxels)
def test_a_line_goes_from_end_to_end_in_steps_of_one_voxel(a, b):
    marked, line = np.zeros(SHAPE, np.uint8), slow_line(a, b)
    assert line[0] == a and line[-1] == b
    assert all(max(abs(q - p) for p, q in zip(u, v)) <= 1 for u, v in itertools.pairwise(line))
    for voxel in line:
        marked[voxel] = 1
        found = clefts_on_lines(marked, marked, [a], [b], corner=(0, 0, 0))
        assert found.cleft.tolist() == [1]
        marked[voxel] = 0
    assert clefts_on_lines(1 - marked, marked, [a], [b], corner=(0, 0, 0)).score.tolist() == [0]


def test_of_equally_many_voxels_the_smallest_cleft_wins_and_background_never():
    row = np.array([0, 0, 0, 0, 0, 8, 8, 3, 3, 0, 0], np.uint64)
    clefts = np.broadcast_to(row, SHAPE)
    found = clefts_on_lines(clefts, clefts, [[1, 1, 0]], [[1, 1, 10]], corner=(0, 0, 0))
    assert found.cleft.tolist() == [3] and found.score.tolist() == [8.0]


def test_a_line_out_of_the_box_is_an_error():
    empty = np.zeros(SHAPE, np.uint8)
    with pytest.raises(ValueError, match="leaves"):
        clefts_on_lines(empty, empty, [[20, 100, 7]], [[20, 100, 18]], corner=CORNER)


# -- connectors -----------------------------------------------------------------------------

positions = st.lists(
    st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=9
).map(lambda rows: np.array(rows) * (40.0, 4.6, 4.6) + (400, 46, -9.2))


@given(positions)
def test_the_connector_is_the_site_nearest_to_the_centroid(pre):
    found = connectors(pre, (480.0, 55.2, 0.0))
    distance = np.linalg.norm(pre - (480.0, 55.2, 0.0), axis=1)
    assert len(found.rows) == 1 and distance[found.rows[0]] == pytest.approx(distance.min())
    assert not found.member.any()


@given(positions)
def test_each_site_of_a_split_cleft_is_nearer_to_its_own_mean(pre):
    found = connectors(pre, (0, 0, 0), split=True)
    if len(np.unique(pre, axis=0)) == 1:
        assert len(found.rows) == 1
        return
    assert set(found.member.tolist()) == {0, 1} and found.member[0] == 0
    assert found.member[found.rows].tolist() == [0, 1]
    means = [pre[found.member == half].mean(axis=0) for half in (0, 1)]
    own, other = (np.linalg.norm(pre - np.stack(means)[m], axis=1)
                  for m in (found.member, 1 - found.member))
    assert (own <= other + 1e-9).all()


def test_two_groups_far_apart_are_told_apart():
    rng = np.random.default_rng(0)
    near, far = rng.normal(0, 5, (7, 3)), rng.normal((0, 300, 0), 5, (4, 3))
    assert two_means(np.concatenate([near, far])).tolist() == [0] * 7 + [1] * 4
