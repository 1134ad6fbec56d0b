import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.synapses.pairing import centers, pair, within_reach, without_duplicates

seeds = st.integers(0, 10**6)


def detections(seed, n=40):
    """Sites (nm) and scores, with equal scores, equal places and distances of exactly 40 nm."""
    rng = np.random.default_rng(seed)
    voxels = rng.integers(0, (4, 30, 30), (n, 3))
    sites = centers(voxels, offset=(80, 9.2, 4.6), voxel_size=(40, 4.6, 4.6))
    return sites, rng.integers(1, 5, n).astype(float)


def kept_slowly(sites, score, distance_nm):
    """A row stays if none that is better is nearer."""
    better = [(-score[i], *sites[i], i) for i in range(len(sites))]
    return [
        not any(
            np.linalg.norm(sites[i] - sites[j]) < distance_nm and better[j] < better[i]
            for j in range(len(sites)) if j != i
        )
        for i in range(len(sites))
    ]


def test_a_site_is_the_centre_of_its_voxel():
    voxels = np.array([[0, 0, 0], [3, 1, 2]])
    found = centers(voxels, offset=(400, 10, -4), voxel_size=(40, 4, 4.6))
    np.testing.assert_allclose(found, [[420, 12, -1.7], [540, 16, 7.5]])


def test_vectors_lead_from_the_detected_site_to_its_partner():
    sites, vectors = np.array([[100.0, 20, 30]]), np.array([[-40.0, 8, 12]])
    pre, post = pair(sites, vectors)
    assert post.tolist() == [[100, 20, 30]] and pre.tolist() == [[60, 28, 42]]
    pre, post = pair(sites, vectors, flip=True)
    assert pre.tolist() == [[100, 20, 30]] and post.tolist() == [[60, 28, 42]]


@pytest.mark.parametrize(("limits", "expected"), [
    ({}, [True, True, True]),
    ({"min_nm": 50}, [False, True, True]),
    ({"max_nm": 50}, [True, True, False]),
    ({"min_nm": 10, "max_nm": 60}, [False, True, False]),
])
def test_vectors_of_the_limits_themselves_are_in_reach(limits, expected):
    vectors = np.array([[0, 0, 0], [0, 30, 40], [40, 40, 40]], float)
    assert within_reach(vectors, **limits).tolist() == expected


@given(seeds, st.sampled_from([0, 4.6, 20, 40, 1000]))
def test_duplicates_are_those_that_have_a_better_one_nearby(seed, distance):
    sites, score = detections(seed)
    found = without_duplicates(sites, score, distance_nm=distance)
    assert found.tolist() == kept_slowly(sites, score, distance)


@given(seeds, st.floats(1, 200))
def test_the_order_of_rows_does_not_matter(seed, distance):
    sites, score = detections(seed)
    first = np.sort(np.unique(np.column_stack([sites, score]), axis=0, return_index=True)[1])
    sites, score = sites[first], score[first]
    order = np.random.default_rng(seed).permutation(len(sites))
    kept = without_duplicates(sites, score, distance_nm=distance)
    assert np.array_equal(
        without_duplicates(sites[order], score[order], distance_nm=distance), kept[order]
    )


@given(seeds, st.floats(1, 60), st.floats(0, 130))
def test_what_is_farther_away_has_no_say(seed, distance, border):
    sites, score = detections(seed)
    near = sites[:, 2] < border + distance
    whole = without_duplicates(sites, score, distance_nm=distance)
    part = without_duplicates(sites[near], score[near], distance_nm=distance)
    inside = sites[near, 2] < border
    assert np.array_equal(whole[near][inside], part[inside])


def test_no_detections_have_no_partners():
    none = np.empty((0, 3))
    assert len(centers(none, offset=(0, 0, 0), voxel_size=(40, 4, 4))) == len(pair(none, none)[0]) == 0
    assert len(within_reach(none, min_nm=4)) == 0
    assert len(without_duplicates(none, np.empty(0), distance_nm=40)) == 0
