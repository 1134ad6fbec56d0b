import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.segmentation.neighborhood import FULL, Neighborhood, combined
from em_blocks.kernels.segmentation.small_basins import join_small_basins
from em_blocks.kernels.segmentation.watershed import watershed

DIRECT = Neighborhood(((-1, 0, 0), (0, -1, 0), (0, 0, -1)))


def joined_slowly(basins, affinities, *, small, quantile, low):
    """Join the best pair of which one is small, again and again; of equal ones the first."""
    labels, size = basins.copy(), np.bincount(basins.ravel())
    contacts = {}
    for axis in range(3):
        later = np.moveaxis(labels, axis, 0)[1:].ravel()
        before = np.moveaxis(labels, axis, 0)[:-1].ravel()
        edges = np.moveaxis(affinities[axis], axis, 0)[1:].ravel()
        for a, b, edge in zip(later, before, edges, strict=True):
            if a != b and a and b:
                counts = contacts.setdefault((min(a, b), max(a, b)), np.zeros(32, int))
                counts[int(edge) * 32 // 65536] += 1
    edges = {pair: (contacts[pair], rank) for rank, pair in enumerate(sorted(contacts))}
    while True:
        free = [
            (-histogram_quantile(counts, quantile), rank, pair)
            for pair, (counts, rank) in edges.items()
            if min(size[list(pair)]) < small and histogram_quantile(counts, quantile) >= low
        ]
        if not free:
            return labels
        a, b = min(free)[2]
        labels[labels == b] = a
        size[a] += size[b]
        moved = {}
        for (u, v), (counts, rank) in edges.items():
            u, v = (a if u == b else u), (a if v == b else v)
            if u != v:
                pair = min(u, v), max(u, v)
                old, old_rank = moved.get(pair, (0, -1))
                moved[pair] = counts + old, max(rank, old_rank)
        edges = moved


def histogram_quantile(counts, quantile):
    target, below = quantile * counts.sum(), 0
    for k, here in enumerate(counts):
        if here and below + here >= target:
            return round((k + (target - below) / here) / 32 * FULL) / FULL
        below += here


@pytest.mark.parametrize("seed", range(5))
def test_equals_joining_the_best_pair_again_and_again(seed):
    rng = np.random.default_rng(seed)
    affinities = rng.integers(0, FULL, (3, 4, 6, 7)).astype(np.uint16)
    basins = watershed(combined(affinities, DIRECT, 0), mask=np.ones((4, 6, 7), bool))
    options = {"small": 25, "quantile": 0.75, "low": 0.2}
    fast = join_small_basins(basins, affinities, DIRECT, **options)
    slow = joined_slowly(basins, affinities, **options)
    pairs = set(zip(fast.ravel(), slow.ravel(), strict=True))
    assert len(pairs) == len(np.unique(fast)) == len(np.unique(slow)) < basins.max()


@given(st.integers(0, 10**6), st.sampled_from([2, 3]), st.integers(0, 60))
def test_basins_are_only_joined_and_nothing_appears_where_nothing_was(seed, dimensions, small):
    rng = np.random.default_rng(seed)
    affinities = rng.integers(0, FULL, (3, 3, 6, 6)).astype(np.uint16)
    mask = rng.random((3, 6, 6)) < 0.8
    basins = watershed(combined(affinities, DIRECT, 0), mask=mask, dimensions=dimensions)
    joined = join_small_basins(
        basins, affinities, DIRECT, small=small, quantile=0.75, low=0.1, dimensions=dimensions
    )
    assert np.array_equal(joined > 0, basins > 0)
    for basin in range(1, basins.max() + 1):
        assert len(np.unique(joined[basins == basin])) == 1
    if dimensions == 2:
        for label in range(1, joined.max() + 1):
            assert len(np.unique(np.nonzero(joined == label)[0])) == 1
    if small <= 1:
        assert np.array_equal(joined, basins)


def test_one_wrong_voxel_of_a_membrane_does_not_decide():
    affinities = np.full((3, 1, 6, 12), FULL, np.uint16)
    affinities[2, :, :, 4] = affinities[2, :, :, 8] = FULL // 10  # three cells side by side
    affinities[2, :, 3, 4] = FULL  # a hole to the left one
    affinities[2, :, :, 8] = FULL // 2  # the right one is less well told apart
    basins = np.repeat([1, 2, 3], 4)[None, None].repeat(6, axis=1).astype(np.int32)
    joined = join_small_basins(basins, affinities, DIRECT, small=25, quantile=0.75, low=0.2)
    left, middle, right = joined[0, 0, [0, 5, 11]]
    assert middle == right != left
