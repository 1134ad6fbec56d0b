"""Mutex watershed beside sets of voxels and of pairs."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.segmentation.mutex_watershed import mutex_watershed
from em_blocks.kernels.segmentation.neighborhood import FULL, Neighborhood

DIRECT = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
FAR = Neighborhood((*DIRECT, (0, 0, -3), (0, -2, -1), (-2, 0, 0)))
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6))
SEEDS = st.integers(0, 2**32 - 1)
BIASES = st.sampled_from([(-0.5, -0.5), (-0.4, -0.7), (-0.2, -1), (0, -1), (-1, -1), (0, 0)])


def edges_of(affinities, mask, biases, strides):
    """(level of strength, affinity + bias, voxel, earlier voxel), the strongest first."""
    edges = []
    for c, shift in enumerate(FAR.shifts):
        far = c in FAR.long_range
        for here in itertools.product(*map(range, mask.shape)):
            before = tuple(h + s for h, s in zip(here, shift, strict=True))
            if far and any(h % s for h, s in zip(here, strides, strict=True)):
                continue
            if min(before) < 0 or not (mask[here] and mask[before]):
                continue
            weight = int(affinities[c][here]) + round(biases[far] * FULL)
            edges.append((abs(weight) * 1024 // FULL, weight, here, before))
    return sorted(edges, key=lambda edge: -edge[0])  # equal ones stay in storage order


def slow(affinities, mask, biases, strides=(1, 1, 1), joined=None):
    """Sets of voxels, and every pair of sets that is held apart."""
    sets = {here: frozenset([here]) for here in itertools.product(*map(range, mask.shape)) if mask[here]}
    apart = set()

    def join(a, b):
        union = sets[a] | sets[b]
        renamed = {sets[a]: union, sets[b]: union}
        apart.update({
            frozenset(renamed.get(side, side) for side in pair) for pair in apart
        })
        sets.update(dict.fromkeys(union, union))

    if joined is not None:
        for axis, here in itertools.product(range(3), sets):
            before = tuple(h + s for h, s in zip(here, DIRECT[axis], strict=True))
            if joined[axis][here] and before in sets:
                join(here, before)
    for _, weight, a, b in edges_of(affinities, mask, biases, strides):
        pair = frozenset([sets[a], sets[b]])
        if len(pair) == 1:
            continue
        if weight <= 0:
            apart.add(pair)
        elif pair not in apart:
            join(a, b)
    names, labels = {}, np.zeros(mask.shape, int)
    for here in sets:  # in storage order
        labels[here] = names.setdefault(sets[here], len(names) + 1)
    return labels


def random_case(shape, seed, *, distinct=True):
    """Affinities whose strengths are of all different levels, or of few."""
    rng = np.random.default_rng(seed)
    n = len(FAR.shifts) * int(np.prod(shape))
    values = rng.permutation(n) * (FULL // n) if distinct else rng.integers(0, 4, n) * (FULL // 3)
    mask = rng.random(shape) < 0.9
    return values.reshape(-1, *shape).astype(np.uint16), mask


def run(affinities, mask, biases, **options):
    direct, far = biases
    return mutex_watershed(
        affinities, FAR, mask=mask, direct_bias=direct, long_range_bias=far, **options
    )


@given(SHAPES, SEEDS, st.booleans(), BIASES)
def test_fragments_are_those_of_the_slow_reference(shape, seed, distinct, biases):
    affinities, mask = random_case(shape, seed, distinct=distinct)
    labels = run(affinities, mask, biases)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, slow(affinities, mask, biases))


@given(SHAPES, SEEDS, st.tuples(*[st.integers(1, 3)] * 3))
def test_long_range_edges_may_be_used_at_some_voxels_only(shape, seed, strides):
    affinities, mask = random_case(shape, seed)
    labels = run(affinities, mask, (-0.3, -0.6), strides=strides)
    np.testing.assert_array_equal(labels, slow(affinities, mask, (-0.3, -0.6), strides))


@given(SHAPES, SEEDS, st.sampled_from([0.1, 0.9]))
def test_what_is_certain_joins_before_all_else(shape, seed, share):
    affinities, mask = random_case(shape, seed)
    joined = np.random.default_rng(seed).random((3, *shape)) < share
    labels = run(affinities, mask, (-0.4, -0.7), joined=joined)
    np.testing.assert_array_equal(
        labels, slow(affinities, mask, (-0.4, -0.7), joined=joined)
    )


@given(SHAPES, SEEDS, BIASES)
def test_voxels_that_a_repulsive_edge_holds_apart_are_joined_by_stronger_ones_only(shape, seed, biases):
    affinities, mask = random_case(shape, seed)
    labels = run(affinities, mask, biases)
    edges = edges_of(affinities, mask, biases, (1, 1, 1))
    for level, weight, a, b in edges:
        if weight <= 0 and labels[a] == labels[b]:
            together = {a}
            for _ in labels.ravel():
                together |= {
                    y for stronger, w, u, v in edges if w > 0 and stronger >= level
                    for x, y in ((u, v), (v, u)) if x in together and labels[y] == labels[a]
                }
            assert b in together


def test_a_thin_wall_holds_although_direct_edges_leak():
    affinities = np.full((6, 2, 6, 12), FULL, np.uint16)
    affinities[2, :, :, 6] = int(0.45 * FULL)  # a faint wall, with a leak in it
    affinities[2, 0, 3, 6] = int(0.8 * FULL)
    affinities[3, :, :, 6:9] = 0
    affinities[4, :, :, 6] = 0
    labels = run(affinities, np.ones((2, 6, 12), bool), (-0.4, -0.7))
    assert labels.max() == 2 and (labels[:, :, :6] == 1).all() and (labels[:, :, 6:] == 2).all()


def test_all_is_one_without_repulsion_and_single_voxels_without_attraction():
    affinities, mask = random_case((3, 4, 5), 0)
    mask[:] = True
    assert run(affinities + 1, mask, (0, 0)).max() == 1
    assert run(affinities, mask, (-1, -1)).max() == mask.size


def test_tables_and_lists_grow_without_loss():
    # More pairs of single voxels are held apart than the first tables hold; then every plane
    # across x becomes one object, and its voxels' lists one list.
    shape = (4, 30, 2000)
    affinities = np.zeros((6, *shape), np.uint16)
    affinities[:2] = np.random.default_rng(3).integers(0.91 * FULL, FULL, (2, *shape))
    affinities[5] = FULL  # attracts, weaker than all others
    labels = run(affinities, np.ones(shape, bool), (-0.4, -0.7))
    np.testing.assert_array_equal(labels, np.broadcast_to(np.arange(1, 2001), shape))


@pytest.mark.parametrize("shape", [(0, 3, 3), (3, 0, 2), (2, 2, 0), (1, 1, 1), (2, 3, 4)])
@pytest.mark.parametrize("inside", [False, True])
def test_nothing_and_single_voxels(shape, inside):
    labels = run(np.full((6, *shape), FULL, np.uint16), np.full(shape, inside), (-0.4, -0.7))
    assert labels.shape == shape and (labels == inside).all()


def test_arrays_of_another_shape_are_refused():
    affinities, mask = random_case((2, 3, 4), 0)
    with pytest.raises(ValueError, match="affinities"):
        run(affinities[:5], mask, (-0.4, -0.7))
    with pytest.raises(ValueError, match="joined"):
        run(affinities, mask, (-0.4, -0.7), joined=np.ones((3, 2, 3, 3), bool))
