"""Scores of a class from counts, against slow references."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from em_blocks.models.scores.classes import balanced_ce, class_scores, count_class


def arrays(seed, n=400, share=0.3):
    rng = np.random.default_rng(seed)
    wanted = rng.random(n) < share
    probability = np.clip(rng.normal(0.35 + 0.3 * wanted, 0.25), 0, 1).astype(np.float32)
    return probability, wanted, rng.random(n) < 0.8


def f1_at(threshold, probability, wanted, known):
    called = (probability >= threshold) & known
    return 2 * (called & wanted).sum() / (called.sum() + (wanted & known).sum())


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_the_voxels(seed):
    probability, wanted, known = arrays(seed)
    found = class_scores(count_class(probability, wanted, known))
    called, positive = (probability >= 0.5) & known, wanted & known
    both, either = (called & positive).sum(), (called | positive).sum()
    assert found.f1 == pytest.approx(f1_at(0.5, probability, wanted, known), abs=1e-12)
    assert found.jaccard == pytest.approx(both / either, abs=1e-12)
    assert found.precision == pytest.approx(both / called.sum(), abs=1e-12)
    assert found.recall == pytest.approx(both / positive.sum(), abs=1e-12)
    thresholds = np.arange(256) / 256
    every = [f1_at(threshold, probability, wanted, known) for threshold in thresholds]
    assert found.best_f1 == pytest.approx(max(every), abs=1e-12)
    assert every[round(found.best_threshold * 256)] == pytest.approx(max(every), abs=1e-12)


def test_a_probability_of_exactly_one_half_is_the_class():
    probability = np.array([0.5, np.nextafter(np.float32(0.5), np.float32(0)), 1], np.float32)
    wanted = np.array([True, True, False])
    found = class_scores(count_class(probability, wanted, np.ones(3, bool)))
    assert (found.recall, found.precision, found.f1) == (0.5, 0.5, 0.5)


def test_of_equally_good_thresholds_that_next_to_one_half_is_named():
    wanted = np.arange(10) < 5
    probability = np.where(wanted, 0.9, 0.1).astype(np.float32)
    assert class_scores(count_class(probability, wanted, wanted | True)).best_threshold == 0.5
    low = class_scores(count_class(probability / 4, wanted, wanted | True))
    assert (low.f1, low.best_f1) == (0, 1) and low.best_threshold == math.floor(0.225 * 256) / 256


def test_a_class_that_does_not_occur_has_no_scores_and_one_that_is_not_found_has_zeros():
    probability, wanted, known = arrays(1)
    absent = class_scores(count_class(probability, wanted & False, known))
    assert all(math.isnan(score) for score in absent)
    missed = class_scores(count_class(probability * 0, wanted, known))
    assert (missed.f1, missed.jaccard, missed.precision, missed.recall) == (0, 0, 0, 0)


def test_balanced_ce_is_the_mean_of_both_sides():
    probability, wanted, known = arrays(2)
    p, t = probability[known].astype(float), wanted[known]
    wanted_ce = (-np.log(p[t].clip(1e-6)).mean() - np.log((1 - p[~t]).clip(1e-6)).mean()) / 2
    found = balanced_ce(count_class(probability, wanted, known))
    assert found == pytest.approx(wanted_ce, abs=1e-4)
    only = known & wanted
    assert balanced_ce(count_class(probability, wanted, only)) == pytest.approx(
        -np.log(p[t].clip(1e-6)).mean(), abs=1e-4
    )
    assert math.isnan(balanced_ce(count_class(probability, wanted, known & False)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 399), max_size=5))
def test_counts_of_parts_add_up_to_those_of_the_whole(seed, cuts):
    values = arrays(seed)
    parts = zip(*(np.split(array, sorted(cuts)) for array in values), strict=True)
    whole = count_class(*values)
    assert whole.dtype == np.int64
    assert (sum(count_class(*part) for part in parts) == whole).all()
