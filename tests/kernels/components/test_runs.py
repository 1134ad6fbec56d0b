"""Runs of ids, and the connected parts that they tell."""

import cc3d
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from em_blocks.kernels.components.runs import connect_runs, containing, find_runs, paint_runs

shapes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 9))
labels = shapes.flatmap(lambda s: arrays(np.uint16, s, elements=st.sampled_from([0, 0, 3, 9])))


def painted(runs, shape, values):
    found = np.zeros(shape, np.int64)
    paint_runs(found.ravel(), runs.first, runs.lengths, values)
    return found


@given(labels=labels)
def test_runs_make_up_the_labels_and_no_two_could_be_one(labels):
    runs = find_runs(labels)
    assert (painted(runs, labels.shape, runs.ids) == labels).all()
    assert runs.lengths.sum() == (labels != 0).sum()
    ends = runs.first + runs.lengths
    one = (runs.ids[1:] == runs.ids[:-1]) & (ends[:-1] == runs.first[1:])
    assert (runs.first[1:][one] % labels.shape[2] == 0).all()  # but for those that a row ends


@pytest.mark.parametrize("begin", [0, 1, 63, 64, 127, 128])
@pytest.mark.parametrize("end", [129, 150, 199, 200])
def test_runs_go_over_what_is_looked_at_together(begin, end):
    row = np.zeros((1, 2, 200), bool)
    row[0, 1, begin:end] = True
    runs = find_runs(row)
    found = [column.tolist() for column in runs]
    assert found == [[1], [200 + begin], [end - begin]]


@pytest.mark.parametrize("connectivity", [6, 26])
@given(labels=labels)
def test_connected_runs_are_the_components_of_the_labels(connectivity, labels):
    expected, n = cc3d.connected_components(labels, connectivity=connectivity, return_N=True)
    runs = find_runs(labels)
    parts = connect_runs(runs, labels.shape, by_corners=connectivity == 26)
    found = painted(runs, labels.shape, parts.numbers)
    assert len(parts.sizes) == n and len(np.unique(found[labels > 0])) == n
    assert len({*zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True)} - {(0, 0)}) == n
    assert parts.sizes.tolist() == np.bincount(found.ravel(), minlength=n + 1)[1:].tolist()
    assert parts.first.tolist() == [int(np.argmax(found.ravel() == k)) for k in range(1, n + 1)]
    assert (np.diff(parts.first) > 0).all()


def test_a_run_is_found_by_any_of_its_voxels():
    runs = find_runs(np.array([[[0, 5, 5, 7, 0, 7]]]))
    assert containing(runs, np.array([1, 2, 3, 5])).tolist() == [0, 0, 1, 2]
