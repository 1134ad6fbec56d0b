"""Which entry of a history is the best."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.training.scores.selection import Choice

HIGH, LOW = Choice("affinities/cut_ap"), Choice("lsd/mse", lower_wins=True)
values = st.lists(st.one_of(st.none(), st.sampled_from([-1.5, 0.0, 0.25, 0.5])), max_size=8)


def history(scores, choice=HIGH):
    return [{"iteration": 10 * (i + 1), choice.score: value} for i, value in enumerate(scores)]


@given(values)
def test_the_best_is_the_first_of_the_highest_that_have_a_value(scores):
    best, known = HIGH.best_of(history(scores)), [s for s in scores if s is not None]
    if not known:
        assert best is None
    else:
        assert best["iteration"] == 10 * (scores.index(max(known)) + 1)


@given(values)
def test_of_an_error_the_lowest_wins(scores):
    best, known = LOW.best_of(history(scores, LOW)), [s for s in scores if s is not None]
    assert (best and best[LOW.score]) == (min(known) if known else None)


@given(values, st.integers(0, 8))
def test_a_history_in_two_parts_has_the_best_of_the_whole(scores, cut):
    entries = history(scores)
    best = HIGH.best_of(entries[:cut])
    for entry in entries[cut:]:
        if HIGH.better(entry, best):
            best = entry
    assert best == HIGH.best_of(entries)


def test_equal_scores_do_not_replace_each_other_and_a_missing_one_is_none():
    entry = {"iteration": 1, HIGH.score: 0.5, LOW.score: 0.5}
    for choice in (HIGH, LOW):
        assert choice.better(entry, None) and not choice.better(dict(entry), entry)
    assert not Choice("affinities/other").better(entry, None)


@pytest.mark.parametrize(("iterations", "best"), [([10, 20], 20), ([10], 10), ([], None)])
def test_only_weights_that_are_there_count(iterations, best):
    found = HIGH.best_of(history([0.1, 0.3, 0.9]), iterations)
    assert (found and found["iteration"]) == best


@given(values)
def test_a_ranking_begins_with_the_best_and_leaves_out_what_has_no_value(scores):
    for choice in (HIGH, LOW):
        entries = history(scores, choice)
        ranking = choice.ranking(entries)
        assert (ranking[0] if ranking else None) == choice.best_of(entries)
        assert len(ranking) == sum(score is not None for score in scores)
        for first, second in pairwise(ranking):
            assert not choice.better(second, first)


# -- data sets that are hurt by what helps the others ------------------------------------------


def entries(choice, *rows):
    """Entries of two data sets; their score is the mean."""
    return [
        {
            "iteration": 10 * (i + 1), choice.score: sum(row) / len(row),
            "data_sets": [
                {"data_set": name, choice.score: value} for name, value in zip("ab", row, strict=True)
            ],
        }
        for i, row in enumerate(rows)
    ]


def test_a_data_set_is_hurt_if_the_best_by_the_mean_is_worse_for_it_than_an_earlier_one():
    found = HIGH.hurt(entries(HIGH, (0.8, 0.2), (0.7, 0.6)))
    assert found == [{"data_set": "a", "value": 0.7, "best": 0.8, "iteration": 10}]


@pytest.mark.parametrize(
    "rows",
    [
        [(0.8, 0.2)],
        [(0.8, 0.2), (0.77, 0.6)],  # less than a twentieth is noise
        [(0.8, 0.2), (0.7, 0.2)],  # the mean is no better: nothing is chosen by it
        [(0.8, 0.2), (0.9, 0.6)],
    ],
)
def test_otherwise_no_data_set_is_hurt(rows):
    assert HIGH.hurt(entries(HIGH, *rows)) == []


def test_of_an_error_a_higher_value_is_worse():
    found = LOW.hurt(entries(LOW, (0.2, 0.9), (0.3, 0.1)))
    assert [(one["data_set"], one["best"]) for one in found] == [("a", 0.2)]


def test_a_history_without_data_sets_or_values_has_none_that_is_hurt():
    assert HIGH.hurt([]) == [] and HIGH.hurt(history([0.1, 0.5])) == []
    rows = entries(HIGH, (0.8, 0.2), (0.7, 0.6))
    rows[0]["data_sets"][0][HIGH.score] = None
    assert HIGH.hurt(rows) == []
