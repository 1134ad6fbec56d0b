"""Series: repeated points replace, chunks join to the same."""

from hypothesis import given
from hypothesis import strategies as st

from em_blocks.db.trainings.series import CHUNK, Series


def series(steps):
    return Series(list(steps), [s / 7 for s in steps], [s * 2.0 for s in steps])


@given(st.integers(0, 2 * CHUNK + 3))
def test_chunks_join_to_the_series_and_none_is_larger_than_it_may_be(n):
    whole = series(range(0, 3 * n, 3))
    chunks = list(whole.chunks())
    assert Series.joined(chunks) == whole
    assert [len(c) for c in chunks] == [CHUNK] * (n // CHUNK) + ([n % CHUNK] if n % CHUNK else [])


def test_a_repeated_step_replaces_its_point_and_all_after_it():
    found = series([10, 20, 30])
    found.add(20, None, 99.0)
    assert found == Series([10, 20], [10 / 7, None], [20.0, 99.0])


def test_cutting_keeps_the_last_step_that_is_named():
    found = series([10, 20, 30])
    found.cut(20)
    assert found == series([10, 20])
