"""Affinities in one form, beside one look per voxel and pair."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.segmentation.neighborhood import (
    FULL,
    Neighborhood,
    OutOfRangeError,
    attached,
    combined,
    quantised,
    to_previous,
)

DIRECT = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
SHAPES = st.tuples(*[st.integers(1, 6)] * 3)
SEEDS = st.integers(0, 2**32 - 1)
STEPS = st.tuples(*[st.integers(0, 4)] * 3).filter(lambda step: sum(step) > 1)


def signed(step, sign):
    return tuple(sign * s for s in step)


@given(
    SHAPES, st.lists(STEPS, max_size=3),
    st.lists(st.sampled_from([-1, 1]), min_size=6, max_size=6), SEEDS,
)
def test_every_pair_is_stored_at_its_later_voxel(shape, steps, signs, seed):
    steps = [signed(s, -1) for s in DIRECT] + steps
    shifts = tuple(signed(step, sign) for step, sign in zip(steps, signs, strict=False))
    values = np.random.default_rng(seed).integers(1, 1000, (len(shifts), *shape))
    moved = to_previous(values, Neighborhood(shifts))
    for c, here in itertools.product(range(len(shifts)), itertools.product(*map(range, shape))):
        before = tuple(h - abs(s) for h, s in zip(here, shifts[c], strict=True))
        if signs[c] < 0:
            assert moved[c][here] == values[c][here]
        else:
            assert moved[c][here] == (values[c][before] if min(before) >= 0 else 0)


@given(SHAPES, SEEDS)
def test_a_shift_to_what_follows_is_one_to_what_comes_before_seen_backwards(shape, seed):
    shifts = (*DIRECT, (-3, 0, 0), (0, -2, -2))
    values = np.random.default_rng(seed).integers(1, 1000, (len(shifts), *shape))
    after = Neighborhood(tuple(signed(s, -1) for s in shifts))
    moved = to_previous(values, after)
    for c, shift in enumerate(shifts):
        flipped = values[c, ::-1, ::-1, ::-1]  # now the partner of every voxel is before it
        pairs = tuple(slice(min(-s, n), None) for s, n in zip(shift, shape, strict=True))
        ends = tuple(slice(0, max(0, n + s)) for s, n in zip(shift, shape, strict=True))
        np.testing.assert_array_equal(
            moved[c][pairs], flipped[pairs][::-1, ::-1, ::-1], strict=True
        )
        assert moved[c][pairs].sum() == values[c][ends].sum() == moved[c].sum()


def test_affinities_to_what_comes_before_are_not_copied():
    values = np.zeros((3, 2, 2, 2), np.uint16)
    assert to_previous(values, Neighborhood(DIRECT)) is values


def test_pairs_that_cannot_be_moved_are_refused():
    mixed = Neighborhood((*DIRECT, (0, 1, -1)))
    with pytest.raises(ValueError, match="both signs"):
        to_previous(np.zeros((4, 2, 2, 2)), mixed)
    with pytest.raises(ValueError, match="3 channels"):
        to_previous(np.zeros((3, 2, 2, 2)), mixed)


@pytest.mark.parametrize(
    ("shifts", "message"),
    [
        (DIRECT[:2], "along x"),
        ((*DIRECT, (0, 1, 0)), "along y"),
        ((*DIRECT, (0, 0, 0)), "not all 0"),
        ((*DIRECT, (0, 3)), "three integers"),
    ],
)
def test_neighborhoods_without_every_direct_neighbour_once_are_refused(shifts, message):
    with pytest.raises(ValueError, match=message):
        Neighborhood(shifts)


def test_channels_are_found_in_any_order():
    neighborhood = Neighborhood(([0, -9, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [2, 2, 0]))
    assert neighborhood.direct == [2, 3, 1]
    assert neighborhood.long_range == [0, 4]
    assert neighborhood.reach == (2, 9, 1)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
    st.sampled_from(["float16", "float32", "float64"]),
)
def test_floats_are_rounded_to_the_nearest_integer(values, dtype):
    values = np.array(values, dtype)
    found = quantised(values)
    assert found.dtype == np.uint16
    assert np.abs(found / FULL - values.astype(float)).max() <= 0.5 / FULL + 1e-7


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
def test_no_and_full_affinity_are_the_ends_of_the_scale(dtype):
    full = np.iinfo(dtype).max if "int" in dtype else 1
    assert quantised(np.array([[0, full]], dtype)).tolist() == [[0, FULL]]
    assert quantised(np.zeros((3, 0, 2), dtype)).shape == (3, 0, 2)


def test_bytes_keep_their_proportions():
    found = quantised(np.arange(256, dtype=np.uint8))
    np.testing.assert_array_equal(found, np.arange(256) * 257)


@pytest.mark.parametrize("values", [[-0.1, 0.5], [0, 1.1], [np.nan, 0], [0, np.inf]])
def test_floats_that_are_no_affinities_are_refused(values):
    with pytest.raises(ValueError, match=r"0\.\.1"):
        quantised(np.array(values))


@pytest.mark.parametrize("dtype", ["int32", "uint32", "bool"])
def test_integers_of_unknown_scale_are_refused(dtype):
    with pytest.raises(ValueError, match=dtype):
        quantised(np.ones(3, dtype))


def slowly_attached(affinities, shifts, edges):
    """Both ends of every pair above 0, and whatever lies at the border."""
    shape = affinities.shape[1:]
    found = np.zeros(shape, bool)
    pairs = [*zip(affinities, np.abs(shifts)), *zip(edges, np.eye(3, dtype=int))]
    for here in itertools.product(*map(range, shape)):
        border = any(h in (0, n - 1) for h, n in zip(here, shape))
        found[here] |= border
        for values, shift in pairs:
            before = tuple(np.array(here) - shift)
            if values[here] > 0:
                found[here] = True
                if min(before) >= 0:
                    found[before] = True
    return found


@given(SHAPES, st.lists(STEPS, max_size=3), st.floats(0, 0.2), SEEDS)
def test_attached_is_what_a_pair_joins(shape, steps, share, seed):
    rng = np.random.default_rng(seed)
    shape = tuple(n + 2 for n in shape)
    shifts = (*DIRECT, *(signed(step, -1) for step in steps))
    values = (rng.integers(1, FULL, (len(shifts), *shape)) * (rng.random((len(shifts), *shape)) < share))
    values = values.astype(np.uint16)
    edges = np.where(rng.random((3, *shape)) < share, rng.random((3, *shape)), 0).astype(np.float32)
    np.testing.assert_array_equal(
        attached(values, Neighborhood(shifts), edges), slowly_attached(values, shifts, edges)
    )


def test_the_smallest_affinity_attaches_both_of_its_voxels():
    values = np.zeros((3, 3, 3, 5), np.uint16)
    values[2, 1, 1, 2] = 1
    found = attached(values, Neighborhood(DIRECT), np.zeros((3, 3, 3, 5), np.float32))
    assert found[1, 1].tolist() == [True, True, True, False, True]
    assert attached(values[..., :0], Neighborhood(DIRECT), np.zeros((3, 3, 3, 0))).shape == (3, 3, 0)


def test_the_first_value_that_is_no_affinity_is_named():
    values = np.zeros((3, 2, 2, 2))
    values[1, 0, 1, 0], values[2, 1, 1, 1] = 1.5, np.nan
    with pytest.raises(OutOfRangeError) as error:
        quantised(values)
    assert (error.value.index, error.value.value) == ((1, 0, 1, 0), 1.5)


def slowly_combined(affinities, neighborhood, weight, mask):
    result = np.zeros((3, *mask.shape))
    for axis, here in itertools.product(range(3), itertools.product(*map(range, mask.shape))):
        sums, weights = float(affinities[neighborhood.direct[axis]][here]), 1
        for c in neighborhood.long_range:
            shift = np.abs(neighborhood.shifts[c])
            if weight == 0 or np.delete(shift, axis).any():
                continue
            crossing = []
            for later in range(here[axis], mask.shape[axis]):
                earlier = later - shift[axis]
                if 0 <= earlier < here[axis]:
                    ends = [(*here[:axis], end, *here[axis + 1 :]) for end in (earlier, later)]
                    if all(mask[end] for end in ends):
                        crossing.append(affinities[c][ends[1]])
            if crossing:
                sums += weight * np.mean(crossing)
                weights += weight
        result[axis][here] = sums / weights / FULL
    return result


@given(
    SHAPES, st.lists(STEPS, max_size=3), st.sampled_from([0, 0.5, 1]), st.booleans(), SEEDS
)
def test_long_range_channels_are_averaged_over_the_pairs_that_cross(shape, steps, weight, masked, seed):
    neighborhood = Neighborhood((*DIRECT, (0, 0, -3), *(signed(s, -1) for s in steps)))
    rng = np.random.default_rng(seed)
    affinities = rng.integers(0, FULL + 1, (len(neighborhood.shifts), *shape)).astype(np.uint16)
    mask = rng.random(shape) < 0.8 if masked else np.ones(shape, bool)
    found = combined(affinities, neighborhood, weight, mask if masked else None)
    assert found.dtype == np.float32 and found.shape == (3, *shape)
    np.testing.assert_allclose(
        found, slowly_combined(affinities, neighborhood, weight, mask), atol=1e-6
    )


def test_diagonal_channels_say_nothing_about_single_edges():
    neighborhood = Neighborhood((*DIRECT, (0, -2, -2), (-1, -1, 0)))
    affinities = np.random.default_rng(1).integers(0, FULL, (5, 4, 5, 6)).astype(np.uint16)
    found = combined(affinities, neighborhood, 1.0)
    np.testing.assert_allclose(found, affinities[:3] / FULL, atol=1e-7)


@pytest.mark.parametrize("shape", [(0, 3, 3), (3, 0, 2), (2, 2, 0)])
def test_empty_arrays_stay_empty(shape):
    neighborhood = Neighborhood((*DIRECT, (0, 0, -2), (0, -2, 0), (-2, 0, 0)))
    assert combined(np.zeros((6, *shape), np.uint16), neighborhood, 1.0).shape == (3, *shape)


def test_a_box_with_context_sees_what_the_whole_does():
    neighborhood = Neighborhood((*DIRECT, (0, 0, -4), (0, -3, 0), (-2, 0, 0)))
    affinities = np.random.default_rng(2).integers(0, FULL, (6, 9, 16, 18)).astype(np.uint16)
    whole = combined(affinities, neighborhood, 0.5)
    part = combined(affinities[:, 1:8, 2:14, 3:17], neighborhood, 0.5)
    np.testing.assert_array_equal(part[:, 2:-2, 3:-3, 4:-4], whole[:, 3:6, 5:11, 7:13])
