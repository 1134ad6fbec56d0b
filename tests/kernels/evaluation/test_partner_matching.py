"""Matching of predicted with true partners, against the square matrix that defines it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from em_blocks.kernels.evaluation import partner_matching as synapse_matching
from em_blocks.kernels.evaluation.partner_matching import (
    PartnerScore,
    cremi_score,
    match_partners,
    score_of,
)
from em_blocks.kernels.synapses.table import TOO_FAR, UNMAPPED, Synapses

TAU = 100.0


def links(*sites):
    """Links from pairs of positions."""
    sites = np.array(sites, float).reshape(-1, 2, 3)
    return Synapses(id=np.arange(len(sites)), pre=sites[:, 0], post=sites[:, 1])


def slow_costs(truth, prediction, truth_ids, prediction_ids, threshold, sites):
    """The square matrix: links that may not match, and those that fill up, cost twice as much."""
    n = max(len(truth), len(prediction))
    costs = np.full((n, n), 2 * threshold)
    for i in range(len(truth)):
        for j in range(len(prediction)):
            apart = {
                "pre": [np.linalg.norm(truth.pre[i] - prediction.pre[j])],
                "post": [np.linalg.norm(truth.post[i] - prediction.post[j])],
            }
            apart = apart["pre"] + apart["post"] if sites == "both" else apart[sites]
            agree = truth_ids is None or (
                (truth_ids[i] == prediction_ids[j]).all() and (truth_ids[i] >= 0).all()
            )
            if agree and max(apart) <= threshold:
                costs[i, j] = np.mean(apart)
    return costs


@st.composite
def two_lists(draw, ids):
    """Two lists of links around few places, of few neurons."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    lists = []
    for n in draw(st.tuples(st.integers(0, 12), st.integers(0, 12))):
        sites = random.uniform(0, draw(st.sampled_from([50, 300, 900])), (n, 2, 3))
        lists += [links(*sites), random.choice([UNMAPPED, TOO_FAR, 0, 1, 1, 2], (n, 2))]
    truth, truth_ids, prediction, prediction_ids = lists
    return truth, prediction, *((truth_ids, prediction_ids) if ids else (None, None))


@given(st.booleans().flatmap(two_lists), st.sampled_from(["both", "pre", "post"]))
def test_matches_are_those_of_the_square_matrix(lists, sites):
    truth, prediction, truth_ids, prediction_ids = lists
    costs = slow_costs(truth, prediction, truth_ids, prediction_ids, TAU, sites)
    rows, columns = linear_sum_assignment(costs)
    matched = costs[rows, columns] <= TAU
    found = match_partners(
        truth=truth, prediction=prediction, threshold_nm=TAU, sites=sites,
        truth_ids=truth_ids, prediction_ids=prediction_ids,
    )
    assert found.truth.tolist() == rows[matched].tolist()
    assert found.prediction.tolist() == columns[matched].tolist()
    np.testing.assert_allclose(found.cost_nm, costs[rows, columns][matched])


def test_many_small_problems_are_solved_in_parts(monkeypatch):
    """Chains of two true and two predicted links; the nearest pair alone would be the wrong one."""
    places = 1000.0 * np.arange(40)[:, None, None] + np.zeros((40, 2, 3))
    shift = np.array([0, 0, 1.0])
    truth = links(*np.concatenate([places, places + 60 * shift]))
    prediction = links(*np.concatenate([places + 50 * shift, places - 90 * shift]))
    whole = match_partners(truth=truth, prediction=prediction, threshold_nm=TAU)
    monkeypatch.setattr(synapse_matching, "_ROWS_AT_ONCE", 3)
    parts = match_partners(truth=truth, prediction=prediction, threshold_nm=TAU)
    assert parts.truth.tolist() == whole.truth.tolist() == list(range(80))
    assert parts.prediction.tolist() == whole.prediction.tolist() == [*range(40, 80), *range(40)]


def test_the_threshold_itself_is_near_enough():
    truth = links([(400, 0, 0), (400, 0, 0)])
    prediction = links([(430, 40, 0), (400, 0, 0)])
    options = {"truth": truth, "prediction": prediction}
    assert len(match_partners(**options, threshold_nm=50.0).truth) == 1
    assert len(match_partners(**options, threshold_nm=np.nextafter(50.0, 0)).truth) == 0
    assert match_partners(**options, threshold_nm=50.0).cost_nm.tolist() == [25.0]


def test_both_sites_must_be_near_enough_not_their_mean():
    truth = links([(0, 0, 0), (0, 0, 0)])
    prediction = links([(0, 0, 0), (0, 0, 120)])
    found = {
        sites: len(match_partners(truth=truth, prediction=prediction, threshold_nm=TAU,
                                  sites=sites).truth)
        for sites in ("both", "pre", "post")
    }
    assert found == {"both": 0, "pre": 1, "post": 0}


def test_two_perfect_matches_are_cheaper_than_three_poor_ones():
    """The rule of the square matrix, although three links could be matched."""
    x = np.array([(0, 0, 100.0), (0, 0, 200.0), (0, 0, 300.0)])
    truth = links(*np.stack([x, x], axis=1))
    prediction = links(*np.stack([x - (0, 0, 100), x - (0, 0, 100)], axis=1))
    found = match_partners(truth=truth, prediction=prediction, threshold_nm=TAU)
    assert found.truth.tolist() == [0, 1] and found.prediction.tolist() == [1, 2]
    assert score_of(found, truth=truth, prediction=prediction) == (2, 1, 1)


def test_empty_lists_match_nothing():
    some, none = links([(0, 0, 0), (0, 0, 40)]), Synapses.empty()
    for truth, prediction in ((some, none), (none, some), (none, none)):
        for ids in (None, np.ones((1, 2), int)):
            given_ids = {} if ids is None else {
                "truth_ids": ids[:len(truth)], "prediction_ids": ids[:len(prediction)]
            }
            found = match_partners(truth=truth, prediction=prediction, threshold_nm=TAU, **given_ids)
            assert len(found.truth) == len(found.prediction) == 0


def test_half_of_the_ids_or_no_distance_is_an_error():
    one = links([(0, 0, 0), (0, 0, 40)])
    with pytest.raises(ValueError, match="both lists"):
        match_partners(truth=one, prediction=one, threshold_nm=TAU, truth_ids=np.ones((1, 2), int))
    with pytest.raises(ValueError, match="positive"):
        match_partners(truth=one, prediction=one, threshold_nm=0.0)


def test_the_cremi_score_counts_links_in_the_right_neurons():
    truth = links([(400, 0, 0), (440, 0, 0)], [(400, 0, 900), (440, 0, 900)])
    prediction = links([(400, 300, 0), (440, 300, 0)], [(400, 0, 900), (440, 0, 900)],
                       [(4000, 0, 0), (4000, 0, 0)])
    truth_ids, prediction_ids = np.array([(1, 2), (1, 2)]), np.array([(1, 2), (1, 3), (0, 0)])
    assert cremi_score(truth=truth, prediction=prediction) == (2, 1, 0)
    with_neurons = cremi_score(truth=truth, prediction=prediction, truth_ids=truth_ids,
                               prediction_ids=prediction_ids)
    assert with_neurons == (1, 2, 1)
    assert (with_neurons.precision, with_neurons.recall) == (1 / 3, 1 / 2)
    assert with_neurons.fscore == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    ("counts", "figures"),
    [
        ((0, 0, 0), (1.0, 1.0, 1.0)), ((0, 3, 0), (0.0, 1.0, 0.0)), ((0, 0, 3), (1.0, 0.0, 0.0)),
        ((0, 2, 3), (0.0, 0.0, 0.0)), ((3, 1, 2), (0.75, 0.6, 2 * 0.75 * 0.6 / 1.35)),
    ],
)
def test_figures_of_counts(counts, figures):
    score = PartnerScore(*counts)
    assert (score.precision, score.recall, score.fscore) == pytest.approx(figures)
    assert list(score.document()) == ["fscore", "precision", "recall", "tp", "fp", "fn"]
