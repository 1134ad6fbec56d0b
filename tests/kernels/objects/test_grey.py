"""Statistics of grey values against numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from em_blocks.kernels.components.numbering import number_ids
from em_blocks.kernels.components.runs import find_runs
from em_blocks.kernels.objects.grey import grey_counts, grey_features

MARGIN = ((0, 1), (1, 1), (1, 1))


def features_of(labels, image):
    runs = find_runs(labels)
    ids, member = number_ids(runs.ids)
    return grey_features(*grey_counts(
        np.pad(labels, MARGIN), np.pad(image, MARGIN), runs, member, len(ids)
    ))


def slow_contrast(labels, image, id):
    squares = []
    for axis in (1, 2):
        a, b = (np.moveaxis(labels == id, axis, 0)[s] for s in (slice(1, None), slice(-1)))
        u, v = (np.moveaxis(image.astype(int), axis, 0)[s] for s in (slice(1, None), slice(-1)))
        squares += ((u - v) ** 2)[a & b].tolist()
    return np.mean(squares) if squares else np.nan


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 6)] * 3), st.sampled_from([2, 30, 256]))
def test_statistics_are_those_of_the_voxels(seed, shape, levels):
    rng = np.random.default_rng(seed)
    labels, image = rng.integers(0, 3, shape), rng.integers(0, levels, shape).astype(np.uint8)
    found = features_of(labels, image)
    for row, id in enumerate(np.unique(labels[labels > 0])):
        values = image[labels == id]
        for name, value in (("mean", values.mean()), ("std", values.std()), ("min", values.min()),
                            ("max", values.max())):
            assert found[f"em_{name}"][row] == pytest.approx(value, abs=1e-9)
        for q in (5, 25, 50, 75, 95):
            expected = np.percentile(values, q, method="inverted_cdf")
            assert found[f"em_p{q:02}"][row] == expected
        counts = np.bincount(values)
        share = counts[counts > 0] / len(values)
        assert found["em_entropy_bits"][row] == pytest.approx(-(share * np.log2(share)).sum(), abs=1e-9)
        assert found["em_contrast"][row] == pytest.approx(
            slow_contrast(labels, image, id), nan_ok=True
        )


def test_a_constant_has_no_spread():
    found = features_of(np.ones((2, 3, 4), int), np.full((2, 3, 4), 255, np.uint8))
    names = ("mean", "std", "entropy_bits", "contrast")
    assert [found[f"em_{name}"][0] for name in names] == [255, 0, 0, 0]
