import numpy as np
import pytest

from em_blocks.kernels.synapses.table import UNMAPPED, Synapses


def table(n=3, **columns):
    rng = np.random.default_rng(n)
    given = {"id": np.arange(n) + 5, "pre": rng.random((n, 3)), "post": rng.random((n, 3))}
    return Synapses(**given | columns)


def test_columns_that_are_not_given_are_unknown():
    made = table()
    assert (made.pre_segment == UNMAPPED).all() and np.isnan(made.score).all()
    assert not made.size.any()


def test_selected_rows_keep_all_columns_together():
    made = table(post_segment=[7, 8, 9], score=[0.1, 0.2, 0.3]).select(np.array([2, 0]))
    assert made.id.tolist() == [7, 5]
    assert made.post_segment.tolist() == [9, 7] and made.score.tolist() == [0.3, 0.1]


def test_flipping_twice_changes_nothing_and_once_exchanges_both_sides():
    made = table(pre_segment=[1, 2, 3], post_skeleton=[4, 5, 6], cleft=[7, 8, 9])
    once, twice = made.flipped(), made.flipped().flipped()
    assert (once.post == made.pre).all() and once.post_segment.tolist() == [1, 2, 3]
    assert once.pre_skeleton.tolist() == [4, 5, 6] and once.cleft.tolist() == [7, 8, 9]
    assert all(
        np.array_equal(getattr(twice, c), getattr(made, c), equal_nan=c.endswith("score"))
        for c in Synapses.columns()
    )


def test_parts_of_a_table_make_the_table_again():
    made = table(5, score=np.arange(5.0))
    parts = Synapses.concatenate([made.select(np.arange(3)), made.select(np.arange(3, 5))])
    assert parts.id.tolist() == made.id.tolist() and parts.score.tolist() == made.score.tolist()
    assert len(Synapses.concatenate([])) == 0


def test_a_table_does_not_change_with_the_array_it_was_made_from():
    pre = np.zeros((3, 3))
    made = table(pre=pre)
    pre += 40
    assert not made.pre.any()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"score": [1.0]}, "score has 1 rows"),
        ({"id": [1, 1, 2]}, "unique"),
        ({"id": [-1, 1, 2]}, "negative"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        table(**columns)
