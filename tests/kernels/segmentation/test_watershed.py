"""Watershed beside the ways that its definition leaves every voxel."""

import itertools

import cc3d
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.segmentation.watershed import watershed

SHAPES = st.tuples(*[st.integers(1, 5)] * 3)
SEEDS = st.integers(0, 2**32 - 1)


def random_case(shape, seed, levels=None):
    """Affinities, of few levels so that plateaus are large, or all different; and a mask."""
    rng = np.random.default_rng(seed)
    affinities = rng.random((3, *shape), np.float32)
    if levels is not None:
        affinities = (np.floor(affinities * levels) / (levels - 1)).astype(np.float32)
    return affinities, rng.random(shape) < 0.9


def edges_of(affinities, mask, dimensions=3):
    """{voxel: {neighbour: affinity}} of all voxels of the mask."""
    edges = {here: {} for here in itertools.product(*map(range, mask.shape)) if mask[here]}
    for here, axis in itertools.product(edges, range(3 - dimensions, 3)):
        before = tuple(i - (k == axis) for k, i in enumerate(here))
        if before in edges:
            edges[here][before] = edges[before][here] = float(affinities[axis][here])
    return edges


def ways_up(edges, low, high):
    """Which neighbours may decide the basin of every voxel; and the number of basins."""
    steepest = {}
    for voxel, beside in edges.items():
        usable = {w: min(e, high) for w, e in beside.items() if e > low or e >= high}
        best = max(usable.values(), default=None)
        steepest[voxel] = best, {w for w, e in usable.items() if e == best}
    best = {voxel: steepest[voxel][0] for voxel in edges}
    ways = {v: {w for w in beside if best[w] > best[v]} for v, (_, beside) in steepest.items()}
    level = {v: beside - ways[v] for v, (_, beside) in steepest.items()}
    front = {v for v in edges if ways[v]}
    while front:
        reached = {w for v in front for w in level[v] if not ways[w]}
        for w in reached:
            ways[w] = level[w] & front
        front = reached
    tops, n = {v for v in edges if not ways[v]}, 0
    left = set(tops)
    while left:
        n += 1
        stack = [left.pop()]
        while stack:
            above = level[stack.pop()] & left
            left -= above
            stack += above
    for v in tops:
        ways[v] = level[v]
    return ways, tops, n


@pytest.mark.parametrize("dimensions", [2, 3])
@given(
    SHAPES, SEEDS, st.sampled_from([None, 2, 3, 5]),
    st.sampled_from([(0, 1), (0.2, 1), (0.3, 0.6), (0.5, 0.5)]),
)
def test_every_voxel_takes_one_of_its_ways_up(dimensions, shape, seed, levels, limits):
    affinities, mask = random_case(shape, seed, levels)
    low, high = limits
    labels = watershed(affinities, mask=mask, dimensions=dimensions, low=low, high=high)
    edges = edges_of(affinities, mask, dimensions)
    ways, tops, n = ways_up(edges, np.float32(low), np.float32(high))
    for voxel, beside in ways.items():
        around = {labels[w] for w in beside}
        # All of a plateau at the top is one basin; elsewhere one way is taken.
        assert around <= {labels[voxel]} if voxel in tops else labels[voxel] in around
    assert labels.max() == n


@given(SHAPES, SEEDS, st.sampled_from([None, 3]), st.sampled_from([0, 1, 3, 10]))
def test_fragments_are_numbered_and_connected_and_lie_in_the_mask(shape, seed, levels, small):
    affinities, mask = random_case(shape, seed, levels)
    labels = watershed(affinities, mask=mask, low=0.1, small=small)
    assert labels.dtype == np.int32 and ((labels > 0) == mask).all()
    found, first = np.unique(labels[labels > 0], return_index=True)
    assert found.tolist() == list(range(1, len(found) + 1)) and (np.diff(first) > 0).all()
    _, n = cc3d.connected_components(labels, connectivity=6, return_N=True)
    assert n == len(found)


@given(SHAPES, SEEDS, st.sampled_from([0, 4]))
def test_sections_of_their_own_are_those_of_each_alone(shape, seed, small):
    affinities, mask = random_case(shape, seed, 4)
    labels = watershed(affinities, mask=mask, dimensions=2, low=0.1, small=small)
    last = 0
    for z in range(shape[0]):
        alone = watershed(affinities[:, z : z + 1], mask=mask[z : z + 1], low=0.1, small=small)
        np.testing.assert_array_equal(labels[z : z + 1], np.where(alone > 0, alone + last, 0))
        last += alone.max()


def joined_slowly(labels, edges, small, low):
    """Over all edges, strongest first; equal ones in the order of the ids they lie between."""
    saddles = {}
    for v, beside in edges.items():
        for w, edge in beside.items():
            pair = int(labels[v]), int(labels[w])
            if pair[0] < pair[1] and edge >= low:
                saddles[pair] = max(edge, saddles.get(pair, 0))
    sets = {i: {i} for i in range(1, labels.max() + 1)}
    for a, b in sorted(saddles, key=lambda pair: (-saddles[pair], pair)):
        if sets[a] is not sets[b]:
            if any(np.isin(labels, list(s)).sum() < small for s in (sets[a], sets[b])):
                sets.update(dict.fromkeys(union := sets[a] | sets[b], union))
    return np.vectorize(lambda i: min(sets[i]) if i else 0, otypes=[int])(labels), saddles


@given(SHAPES, SEEDS, st.sampled_from([None, 4]), st.integers(1, 12), st.sampled_from([0, 0.4]))
def test_small_basins_join_over_their_strongest_edges(shape, seed, levels, small, low):
    affinities, mask = random_case(shape, seed, levels)
    basins = watershed(affinities, mask=mask, low=low)
    labels = watershed(affinities, mask=mask, low=low, small=small)
    edges = edges_of(affinities, mask)
    expected, _ = joined_slowly(basins, edges, small, np.float32(low))
    renamed = np.unique(expected[mask], return_inverse=True)[1] + 1
    np.testing.assert_array_equal(labels[mask], renamed)
    # No two are left of which one should have joined the other.
    size = np.bincount(labels.ravel(), minlength=1)
    _, saddles = joined_slowly(labels, edges, 0, np.float32(low))
    assert all(size[a] >= small and size[b] >= small for a, b in saddles)


@given(SHAPES, SEEDS, st.lists(st.integers(1, 99), min_size=4, max_size=4, unique=True))
def test_only_the_order_of_affinities_matters(shape, seed, values):
    rng = np.random.default_rng(seed)
    level = rng.integers(0, 6, (3, *shape))
    even = np.linspace(0, 1, 6, dtype=np.float32)
    other = np.array([0, *sorted(values), 100], np.float32) / 100
    mask = np.ones(shape, bool)
    np.testing.assert_array_equal(
        watershed(even[level], mask=mask), watershed(other[level], mask=mask)
    )


@given(SHAPES, SEEDS, st.integers(0, 2), st.sampled_from([0, 1000]))
def test_a_wall_without_thickness_is_never_crossed(shape, seed, axis, small):
    affinities, mask = random_case(shape, seed, 5)
    wall = shape[axis] // 2
    np.moveaxis(affinities[axis], axis, 0)[wall] = 0
    labels = np.moveaxis(watershed(affinities, mask=mask, low=0.01, small=small), axis, 0)
    assert set(labels[:wall].ravel()) & set(labels[wall:].ravel()) <= {0}


def test_a_plateau_of_equal_affinities_is_one_basin():
    affinities = np.full((3, 6, 7, 8), 254 / 255, np.float32)
    assert watershed(affinities, mask=np.ones((6, 7, 8), bool)).max() == 1


def test_a_plateau_between_two_basins_is_divided_in_the_middle():
    line = np.array([0, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.8], np.float32)
    affinities = np.zeros((3, 1, 1, 8), np.float32)
    affinities[2, 0, 0] = line
    labels = watershed(affinities, mask=np.ones((1, 1, 8), bool))
    assert labels.ravel().tolist() == [1, 1, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("shape", [(0, 3, 3), (3, 0, 2), (1, 1, 1), (2, 3, 4)])
@pytest.mark.parametrize("small", [0, 5])
def test_nothing_and_single_voxels(shape, small):
    affinities = np.ones((3, *shape), np.float32)
    for inside in (False, True):
        labels = watershed(affinities, mask=np.full(shape, inside), small=small)
        assert labels.shape == shape and (labels == inside).all()


def test_more_basins_than_the_first_table_holds_are_all_joined():
    affinities = np.random.default_rng(0).random((3, 30, 40, 40), np.float32)
    mask = np.ones((30, 40, 40), bool)
    assert watershed(affinities, mask=mask).max() > 1 << 12
    assert watershed(affinities, mask=mask, small=mask.size).max() == 1


def test_arrays_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="affinities"):
        watershed(np.zeros((3, 2, 2, 2), np.float32), mask=np.ones((2, 2, 3), bool))
    with pytest.raises(ValueError, match="affinities"):
        watershed(np.zeros((4, 2, 2, 2), np.float32), mask=np.ones((2, 2, 2), bool))
