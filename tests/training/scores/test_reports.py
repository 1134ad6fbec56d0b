"""What is said of a validation."""

import logging

from em_blocks.training.scores.reports import curves, log_validation
from em_blocks.training.scores.selection import Choice

SCORE = "organelles/f1"


def entry(iteration, a, b, **more):
    return {
        "iteration": iteration, SCORE: (a + b) / 2, "organelles/mito_f1": None,
        "data_sets": [{"data_set": "a", SCORE: a}, {"data_set": "b cell", SCORE: b}],
        "undefined": {"organelles/mito_f1": "nothing there is known"}, **more,
    }


def test_curves_are_of_the_mean_and_of_every_data_set_where_there_is_a_value():
    assert curves(entry(10, 0.5, 0.25)) == {
        f"validation/{SCORE}": 0.375, f"validation/a/{SCORE}": 0.5, f"validation/b cell/{SCORE}": 0.25,
    }


def messages(caplog, history, never=()):
    with caplog.at_level(logging.INFO):
        log_validation(history, Choice(SCORE), never)
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_scores_are_logged_and_those_without_value_warned_of_unless_they_never_have_one(caplog):
    said = messages(caplog, [entry(10, 0.5, 0.25)])
    assert said[0] == ("INFO", f"iteration 10: {SCORE} 0.3750")
    assert said[1] == (
        "WARNING", "iteration 10: no value of organelles/mito_f1: nothing there is known"
    )
    caplog.clear()
    assert len(messages(caplog, [entry(10, 0.5, 0.25)], never=["organelles/mito_f1"])) == 1


def test_a_data_set_that_the_best_mean_is_worse_for_is_warned_of(caplog):
    never = ["organelles/mito_f1"]
    said = messages(caplog, [entry(10, 0.8, 0.2), entry(20, 0.7, 0.6)], never)
    assert said[1][0] == "WARNING" and "0.7000 there, 0.8000 at iteration 10" in said[1][1]
    assert "not for a:" in said[1][1] and SCORE in said[1][1]
    caplog.clear()
    assert len(messages(caplog, [entry(10, 0.8, 0.2), entry(20, 0.8, 0.6)], never)) == 1


def test_a_line_of_the_log_has_the_choosing_score_first_and_five_others(caplog):
    more = {f"organelles/c{number}_f1": number / 10 for number in range(6)}
    (_, line), *_ = messages(caplog, [{**more, "iteration": 10, SCORE: 0.375}])
    listed = ", ".join(f"organelles/c{number}_f1 {number / 10:.4f}" for number in range(5))
    assert line == f"iteration 10: {SCORE} 0.3750, {listed}; 1 more in record.json"
