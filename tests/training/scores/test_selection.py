"""Which entry of a history is the best."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.training.scores.selection import best_of, better

HIGH, LOW = "affinities/cut_ap", "lsd/mse"
values = st.lists(st.one_of(st.none(), st.sampled_from([-1.5, 0.0, 0.25, 0.5])), max_size=8)


def history(scores, name=HIGH):
    return [{"iteration": 10 * (i + 1), name: value} for i, value in enumerate(scores)]


@given(values)
def test_the_best_is_the_first_of_the_highest_that_have_a_value(scores):
    best, known = best_of(history(scores), HIGH), [s for s in scores if s is not None]
    if not known:
        assert best is None
    else:
        assert best["iteration"] == 10 * (scores.index(max(known)) + 1)


@given(values)
def test_of_an_error_the_lowest_wins(scores):
    best, known = best_of(history(scores, LOW), LOW), [s for s in scores if s is not None]
    assert (best and best[LOW]) == (min(known) if known else None)


@given(values, st.integers(0, 8))
def test_a_history_in_two_parts_has_the_best_of_the_whole(scores, cut):
    entries = history(scores)
    best = best_of(entries[:cut], HIGH)
    for entry in entries[cut:]:
        if better(entry, best, HIGH):
            best = entry
    assert best == best_of(entries, HIGH)


def test_equal_scores_do_not_replace_each_other_and_a_missing_one_is_none():
    entry = {"iteration": 1, HIGH: 0.5, LOW: 0.5}
    for name in (HIGH, LOW):
        assert better(entry, None, name) and not better(dict(entry), entry, name)
    assert not better(entry, None, "affinities/other")


@pytest.mark.parametrize(("iterations", "best"), [([10, 20], 20), ([10], 10), ([], None)])
def test_only_weights_that_are_there_count(iterations, best):
    found = best_of(history([0.1, 0.3, 0.9]), HIGH, iterations)
    assert (found and found["iteration"]) == best
