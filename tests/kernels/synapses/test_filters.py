"""Filters of partners: what they remove, in which order, and that they say so."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.synapses.filters import (
    Duplicates,
    Length,
    Listed,
    Score,
    SelfLinks,
    apply_filters,
)
from em_blocks.kernels.synapses.table import BACKGROUND, TOO_FAR, UNMAPPED, Synapses


def table(n=6, **columns):
    """Links 10, 11, ... of segment 1 with segment 2, far from each other."""
    far = 10_000.0 * np.arange(n)[:, None] * [0, 0, 1] + [400, 46, 46]
    values = {"id": 10 + np.arange(n), "pre": far, "post": np.add(far, [40, 0, 0]),
              "pre_segment": np.ones(n), "post_segment": np.full(n, 2)}
    return Synapses(**values | columns)


def test_a_score_at_the_threshold_stays_and_none_goes():
    kept, removed = Score(0.5)(table(4, score=[0.5, np.nextafter(0.5, 0), np.nan, 0.9]))
    assert kept.id.tolist() == [10, 13] and removed.tolist() == [11, 12]


def test_links_on_background_go_and_unmapped_ones_stay():
    links = table(4, pre_segment=[BACKGROUND, 1, 1, UNMAPPED], post_segment=[2, BACKGROUND, 2, 2])
    assert Listed()(links).removed.tolist() == [10, 11]
    assert Listed((1, UNMAPPED))(links).removed.tolist() == [11, 12, 13]
    assert Listed((7,), "skeleton")(links.replace(pre_skeleton=[7, 8, 8, 8])).removed.tolist() == [10]


def test_links_of_a_neuron_with_itself_go_also_if_nobody_knows_it():
    links = table(4, pre_segment=[1, 2, UNMAPPED, UNMAPPED], post_segment=[1, 1, UNMAPPED, 1])
    assert SelfLinks()(links).removed.tolist() == [10, 12]
    assert SelfLinks("supervoxel")(links).removed.tolist() == [10, 11, 12, 13]


def test_links_must_have_a_length_in_between():
    links = table(3, pre=np.zeros((3, 3)), post=[(0, 0, 20), (0, 30, 40), (500, 0, 0)])
    assert Length(20, 50)(links).removed.tolist() == [12]
    assert Length(20.5)(links).removed.tolist() == [10]


def places(*x):
    """Postsynaptic sites along x."""
    return np.array([(400.0, 46.0, value) for value in x])


def test_of_near_links_of_one_pair_the_best_stays():
    """0 - 200 - 400 is a chain; 1000 is far from it; the last joins other neurons."""
    links = table(5, post=places(0, 400, 200, 1000, 200), score=[1, 3, 2, 0, 9],
                  post_segment=[2, 2, 2, 2, 3])
    assert Duplicates(250)(links).removed.tolist() == [10, 12]
    assert Duplicates(200)(links).removed.tolist() == [10, 12]
    assert Duplicates(199)(links).removed.tolist() == []
    assert Duplicates(None)(links).removed.tolist() == [10, 12, 13]


def test_the_best_of_equal_scores_is_the_least_id_whatever_the_order_of_rows():
    links = table(4, post=places(0, 0, 10, 20), score=[1, 2, 2, np.nan])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        assert Duplicates(50)(links.select(order)).kept.id.tolist() == [11]


def test_links_at_the_same_position_are_duplicates():
    links = table(2, post=places(5, 5), score=[1, 2])
    assert Duplicates(250)(links).removed.tolist() == [10]
    assert Duplicates(0)(links).removed.tolist() == [10]


def test_pairs_are_directed_and_unknown_neurons_have_no_duplicates():
    post = places(0, 0, 0, 0, 0, 0)
    links = table(6, post=post, pre_segment=[1, 2, UNMAPPED, UNMAPPED, TOO_FAR, TOO_FAR],
                  post_segment=[2, 1, 2, 2, 2, 2])
    assert Duplicates(250)(links).removed.tolist() == []
    assert Duplicates(250, ignore=())(links).removed.tolist() == [15]
    assert Duplicates(250, ignore=(2, TOO_FAR))(links).removed.tolist() == []


def test_presynaptic_sites_may_be_compared_instead():
    links = table(2, pre=places(0, 100), post=places(0, 9000), score=[1, 2])
    assert Duplicates(150)(links).removed.tolist() == []
    assert Duplicates(150, site="pre")(links).removed.tolist() == [10]


def test_the_mean_of_duplicates_takes_the_first_id():
    links = table(4, pre=places(0, 30, 60, 9000), post=places(1, 2, 6, 9000), score=[1, 5, 2, 0])
    kept, removed = Duplicates(250, keep="mean")(links)
    assert kept.id.tolist() == [10, 13] and removed.tolist() == [11, 12]
    np.testing.assert_allclose(kept.pre, places(30, 9000))
    np.testing.assert_allclose(kept.post, places(3, 9000))
    assert kept.score.tolist() == [1, 0]


def slow_duplicates(links, distance):
    """One link after the other joins all clusters that it is near to; the best of each stays."""
    clusters = []
    for n in range(len(links)):
        ids = {links.pre_segment[n], links.post_segment[n]}
        if UNMAPPED in ids or TOO_FAR in ids:
            continue
        near = [
            cluster for cluster in clusters if any(
                links.pre_segment[m] == links.pre_segment[n]
                and links.post_segment[m] == links.post_segment[n]
                and np.linalg.norm(links.post[m] - links.post[n]) <= distance for m in cluster
            )
        ]
        clusters = [c for c in clusters if c not in near] + [sum(near, [n])]
    gone = []
    for cluster in clusters:
        best = min(cluster, key=lambda m: (-links.score[m], links.id[m]))
        gone += [int(links.id[m]) for m in cluster if m != best]
    return sorted(gone)


@given(st.integers(0, 2**32), st.integers(0, 25), st.sampled_from([40.0, 100.0, 250.0]))
def test_duplicates_are_those_of_the_plain_rule(seed, n, distance):
    random = np.random.default_rng(seed)
    links = Synapses(
        id=random.permutation(n), pre=np.zeros((n, 3)), post=random.integers(0, 20, (n, 3)) * 20.0,
        score=random.integers(0, 4, n), pre_segment=random.choice([UNMAPPED, TOO_FAR, 1, 2], n),
        post_segment=random.choice([1, 2], n),
    )
    kept, removed = Duplicates(distance)(links)
    assert removed.tolist() == slow_duplicates(links, distance)
    again = Duplicates(distance)(kept)
    assert set(again.removed) <= set(kept.id)
    shuffled = Duplicates(distance)(links.select(random.permutation(n)))
    assert shuffled.removed.tolist() == removed.tolist()
    assert sorted([*kept.id, *removed]) == list(range(n))


def test_a_list_of_filters_counts_what_each_removes():
    links = table(6, score=[1, 9, 9, 9, 9, 9], pre_segment=[0, 0, 2, 1, 1, 1],
                  post=places(0, 0, 0, 0, 0, 900))
    filters = [Score(2), Listed(), SelfLinks(), Duplicates(250)]
    kept, steps = apply_filters(links, filters)
    assert kept.id.tolist() == [13, 15]
    assert [(step.before, step.removed.tolist()) for step in steps] == [
        (6, [10]), (5, [11]), (4, [12]), (3, [14])
    ]
    assert [str(step.filter) for step in steps] == [
        "score < 2", "no segment (background)", "same segment",
        "duplicate within 250 nm, same segments",
    ]
    # In another order, others are to blame.
    assert [len(step.removed) for step in apply_filters(links, filters[::-1])[1]] == [2, 1, 1, 0]


@pytest.mark.parametrize("filter", [Score(1), Listed(), SelfLinks(), Length(1), Duplicates(250)])
def test_nothing_is_removed_from_an_empty_table(filter):
    kept, removed = filter(Synapses.empty())
    assert len(kept) == len(removed) == 0
