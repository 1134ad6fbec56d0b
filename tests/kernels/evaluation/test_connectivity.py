"""Credited synapses against dilating every neuron, as the method is defined."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from dilating import random_volume, sizes_of, slow_contacts, slow_credits
from em_blocks.kernels.evaluation.connectivity import (
    WHOLE,
    Contacts,
    Credits,
    contact_zones,
    context_of,
    count_sizes,
    credit_synapses,
    reach_in_nm,
    reach_in_voxels,
)
from em_blocks.kernels.evaluation.counts import Sizes

# The last one needs all bits; the others differ only in their upper ones.
IDS = st.sampled_from([0, 0, 1, 2, 2**33, 2**34, 2**64 - 1])
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))


def as_dict(table):
    keys = list(zip(*(getattr(table, name).tolist() for name in table.ids()), strict=True))
    assert keys == sorted(set(keys))  # sorted, each once
    assert all(getattr(table, name).dtype == np.uint64 for name in table.ids())
    return dict(zip(keys, table.voxels.tolist(), strict=True))


# -- reach ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), [(1, 7), (2, 23), (3, 51), (5, 143)])
def test_a_reach_is_one_step_in_space_and_others_in_the_section(n, size):
    step = ndimage.generate_binary_structure(3, 1)
    grown = np.zeros((3, 2 * n + 1, 2 * n + 1), bool)
    grown[1, n, n] = True
    grown = ndimage.binary_dilation(grown, step)
    for _ in range(n - 1):
        grown = ndimage.binary_dilation(grown, step * np.array([0, 1, 0])[:, None, None])
    shifts = reach_in_voxels(n)
    assert len(shifts) == size and context_of(shifts) == (1, n, n)
    np.testing.assert_array_equal(shifts, np.argwhere(grown) - (1, n, n))


def test_a_reach_in_nm_knows_how_large_voxels_are():
    assert context_of(reach_in_nm(20, (40.0, 4.6, 4.6))) == (0, 4, 4)
    assert context_of(reach_in_nm(40, (40.0, 4.0, 4.0))) == (1, 10, 10)
    assert reach_in_nm(3, (40.0, 4.0, 4.0)).tolist() == [[0, 0, 0]]
    far = itertools.product(range(-5, 6), repeat=3)
    expected = [list(s) for s in far if (8 * s[0])**2 + (4 * s[1])**2 + (6 * s[2])**2 <= 13**2]
    assert reach_in_nm(13, (8.0, 4.0, 6.0)).tolist() == expected and len(expected) > 30


def test_no_reach_is_refused():
    with pytest.raises(ValueError, match="at least 1 voxel, got 0"):
        reach_in_voxels(0)


# -- counts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3])
def test_credits_are_those_of_dilated_neurons(n):
    neurons, synapses = random_volume(seed=n)
    found = credit_synapses(synapses, neurons, reach_in_voxels(n))
    expected = slow_credits(synapses, neurons, n)
    assert as_dict(found.pairs) == expected and len(expected) > 200
    assert as_dict(found.sizes) == sizes_of(synapses)


@settings(max_examples=40)
@given(st.data(), SHAPES, st.integers(1, 3))
def test_any_volumes_with_any_ids(data, shape, n):
    neurons, synapses = (data.draw(hnp.arrays(np.uint64, shape, elements=IDS)) for _ in range(2))
    found = credit_synapses(synapses, neurons, reach_in_voxels(n))
    assert as_dict(found.pairs) == slow_credits(synapses, neurons, n)
    assert as_dict(found.sizes) == sizes_of(synapses)
    zones = {pair: int(mask.sum()) for pair, mask in slow_contacts(neurons, n).items() if mask.any()}
    assert as_dict(
        contact_zones(neurons, reach_in_voxels(n), corner=(0, 0, 0), shape=shape)
    ) == zones
    assert as_dict(count_sizes(neurons)) == sizes_of(neurons)


@settings(max_examples=25)
@given(st.data(), SHAPES, st.integers(1, 3), st.tuples(*[st.integers(0, 6)] * 3))
def test_parts_with_their_context_add_up_to_the_whole(data, shape, n, cut):
    neurons, synapses = (data.draw(hnp.arrays(np.uint64, shape, elements=IDS)) for _ in range(2))
    shifts = reach_in_voxels(n)
    cuts = [(0, min(c, s), s) for c, s in zip(cut, shape, strict=True)]
    credits, zones = [], []
    for sides in itertools.product(*(itertools.pairwise(c) for c in cuts)):
        inner = tuple(slice(*side) for side in sides)
        low = [max(0, begin - c) for (begin, _), c in zip(sides, (1, n, n), strict=True)]
        outer = tuple(slice(o, e + c) for o, (_, e), c in zip(low, sides, (1, n, n), strict=True))
        corner = tuple(begin - o for (begin, _), o in zip(sides, low, strict=True))
        credits.append(credit_synapses(synapses[inner], neurons[outer], shifts, corner=corner))
        zones.append(contact_zones(neurons[outer], shifts, corner=corner,
                                   shape=synapses[inner].shape))
    whole = credit_synapses(synapses, neurons, shifts)
    assert as_dict(Credits.merged(credits)) == as_dict(whole)
    assert as_dict(Contacts.merged(zones)) == as_dict(
        contact_zones(neurons, shifts, corner=(0, 0, 0), shape=shape)
    )
    parts = [whole.part(number, 3) for number in range(3)]
    assert as_dict(Credits.merged(parts)) == as_dict(whole)
    assert len({id for part in parts for id in np.unique(part.synapse).tolist()}) == sum(
        len(np.unique(part.synapse)) for part in parts
    )


def test_a_synapse_between_no_two_neurons_is_counted_but_not_credited():
    neurons, synapses = np.full((3, 4, 4), 7, np.uint64), np.zeros((3, 4, 4), np.int32)
    synapses[1, 1:3] = 5
    found = credit_synapses(synapses, neurons, reach_in_voxels(2))
    assert as_dict(found) == {(5, WHOLE, WHOLE): 8} and not len(found.pairs)


def test_tables_grow_with_what_is_found():
    """More neurons around one voxel than a new table has places."""
    neurons = np.arange(1, 91, dtype=np.uint64).reshape(1, 9, 10)
    synapses = np.zeros(neurons.shape, np.uint8)
    synapses[0, 4, 4] = 3
    found = credit_synapses(synapses, neurons, reach_in_voxels(20))
    assert len(found.pairs) == 90 * 89 // 2 and (found.voxels == 1).all()


def test_many_tables_are_merged_in_several_steps(monkeypatch):
    monkeypatch.setattr("em_blocks.kernels.evaluation.counts._WAITING_ROWS", 3)
    tables = [count_sizes(np.array([id % 4, 9])) for id in range(20)]
    assert as_dict(Sizes.merged(iter(tables))) == {(1,): 5, (2,): 5, (3,): 5, (9,): 20}
    assert len(Sizes.merged([])) == len(Sizes.merged([Sizes.empty()])) == 0


@pytest.mark.parametrize(
    ("synapses", "neurons", "corner", "words"),
    [
        (np.zeros((2, 2, 2)), np.zeros((2, 2, 2), int), (0, 0, 0), "integers, got float64"),
        (np.zeros((2, 2, 2), int), np.full((2, 2, 2), -3), (0, 0, 0), "not negative, got -3"),
        (np.zeros((2, 2, 2), int), np.zeros((2, 3, 2), int), (0, 2, 0), "do not cover"),
    ],
)
def test_what_cannot_be_credited_is_refused(synapses, neurons, corner, words):
    with pytest.raises(ValueError, match=words):
        credit_synapses(synapses, neurons, reach_in_voxels(1), corner=corner)
