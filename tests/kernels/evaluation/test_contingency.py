"""Counting pairs of ids: against a slow count, in parts, and at the ends of the id range."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from em_blocks.kernels.evaluation import contingency
from em_blocks.kernels.evaluation.contingency import (
    EMPTY,
    Contingency,
    count_overlaps,
    merged,
    negative_ids,
)

# Few ids, so that pairs repeat; one needs all bits, so that a pair does not fit into 64.
IDS = st.sampled_from([0, 1, 2, 3, 2**31, 2**63 - 1, 2**64 - 1])
LABELS = hnp.arrays(np.uint64, (3, 4, 5), elements=IDS)


def as_counter(table: Contingency) -> Counter:
    keys = list(zip(table.segmentation.tolist(), table.truth.tolist(), strict=True))
    assert keys == sorted(set(keys))  # sorted, each pair once
    assert table.segmentation.dtype == table.truth.dtype == np.uint64
    assert table.voxels.dtype == np.int64 and (table.voxels > 0).all()
    return Counter(dict(zip(keys, table.voxels.tolist(), strict=True)))


def slow_count(segmentation, truth) -> Counter:
    return Counter(zip(segmentation.ravel().tolist(), truth.ravel().tolist(), strict=True))


@given(LABELS, LABELS)
def test_pairs_are_those_of_a_slow_count(segmentation, truth):
    table = count_overlaps(segmentation=segmentation, truth=truth)
    assert as_counter(table) == slow_count(segmentation, truth)
    assert table.total == truth.size


@given(LABELS, LABELS, st.integers(0, 3), st.integers(0, 5))
def test_tables_of_parts_add_up_to_the_table_of_the_whole(segmentation, truth, z, x):
    parts = [np.s_[:z, :, :x], np.s_[:z, :, x:], np.s_[z:, :, :x], np.s_[z:, :, x:]]
    tables = [count_overlaps(segmentation=segmentation[p], truth=truth[p]) for p in parts]
    assert as_counter(merged(tables)) == slow_count(segmentation, truth)


def test_many_tables_are_merged_in_several_steps(monkeypatch):
    monkeypatch.setattr(contingency, "_WAITING_ROWS", 3)
    random = np.random.default_rng(0)
    segmentation, truth = random.integers(0, 9, (2, 40, 3, 4))
    tables = [count_overlaps(segmentation=s, truth=t) for s, t in zip(segmentation, truth)]
    assert as_counter(merged(iter(tables))) == slow_count(segmentation, truth)


def test_pairs_too_many_for_a_matrix_are_sorted():
    random = np.random.default_rng(0)
    segmentation, truth = random.integers(0, 2**63, (2, 500)).repeat(3, axis=1)
    assert as_counter(count_overlaps(segmentation=segmentation, truth=truth)) == slow_count(
        segmentation, truth
    )


def test_nothing_is_counted_in_an_empty_block():
    nothing = np.zeros((0, 3, 4), np.uint32)
    assert len(count_overlaps(segmentation=nothing, truth=nothing)) == 0
    assert len(merged([])) == len(merged([EMPTY, EMPTY])) == EMPTY.total == 0


@given(LABELS, LABELS, st.sets(IDS), st.sets(IDS))
def test_ignored_ids_are_left_out_on_their_own_side_only(segmentation, truth, ignored_t, ignored_s):
    table = count_overlaps(segmentation=segmentation, truth=truth)
    kept = [
        (s, t) for s, t in zip(segmentation.ravel().tolist(), truth.ravel().tolist(), strict=True)
        if t not in ignored_t and s not in ignored_s
    ]
    assert as_counter(table.without(truth=ignored_t, segmentation=ignored_s)) == Counter(kept)


@given(LABELS, LABELS, st.integers(1, 4), st.sampled_from(["segmentation", "truth"]))
def test_parts_hold_whole_objects_and_make_the_whole(segmentation, truth, of, side):
    table = count_overlaps(segmentation=segmentation, truth=truth)
    parts = [table.part(side, number, of) for number in range(of)]
    ids = [set(getattr(part, side).tolist()) for part in parts]
    assert sum(map(len, ids)) == len(set().union(*ids))
    assert as_counter(merged(parts)) == as_counter(table)


def test_parts_are_of_similar_size_for_regular_ids():
    ids = np.arange(0, 64 * 1000, 64, dtype=np.uint64)
    table = Contingency(ids, ids, np.ones(1000, np.int64))
    sizes = [len(table.part("truth", number, 4)) for number in range(4)]
    assert min(sizes) > 150, sizes


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint32", "int64", ">u4"])
@settings(max_examples=5)
@given(hnp.arrays(np.uint8, (2, 2, 3), elements=st.integers(0, 2)))
def test_every_type_of_integer_counts_alike(dtype, labels):
    table = count_overlaps(segmentation=labels.astype(dtype), truth=labels)
    assert as_counter(table) == slow_count(labels, labels)


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (np.zeros((2, 3)), "shape"),
        (np.zeros(4, np.float32), "integers, got float32"),
        (np.array([0, 0, -1, 2]), "not negative, got -1"),
    ],
)
def test_what_is_no_segmentation_is_refused(segmentation, words):
    with pytest.raises(ValueError, match=words):
        count_overlaps(segmentation=segmentation, truth=np.zeros(4, np.uint8))


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64"])
def test_negative_ids_that_may_occur_are_counted_and_left_out_in_either_spelling(dtype):
    segmentation = np.array([-1, -1, 3, 3, -2], dtype)
    table = count_overlaps(
        segmentation=segmentation, truth=np.array([1, 1, 1, 2, 2]), negative=(-1, -2)
    )
    assert as_counter(table) == {
        (2**64 - 1, 1): 2, (3, 1): 1, (3, 2): 1, (2**64 - 2, 2): 1
    }
    for ids in ((-1, -2), (2**64 - 1, 2**64 - 2)):
        assert as_counter(table.without(segmentation=ids)) == {(3, 1): 1, (3, 2): 1}


def test_a_negative_id_that_may_not_occur_is_named_beside_one_that_may():
    labels = np.array([-1, 5, -3])
    with pytest.raises(ValueError, match="not negative, got -3"):
        count_overlaps(segmentation=labels, truth=labels, negative=(-1,))
    assert negative_ids(labels, (2**64 - 1,)).tolist() == [-3]
    assert not len(negative_ids(labels.astype(np.uint64)))
