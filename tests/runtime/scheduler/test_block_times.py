"""What is a long time for a block."""

import math

import pytest

from em_blocks.runtime.scheduler.block_times import (
    ENOUGH,
    FIRST_LIMIT_S,
    KEPT,
    LEAST_LIMIT_S,
    LEAST_UNUSUAL_S,
    BlockTimes,
)


def times(seconds, limit=None):
    measured = BlockTimes(limit)
    for value in seconds:
        measured.add(value)
    return measured


def test_a_few_blocks_prove_nothing():
    measured = times([100.0] * (ENOUGH - 1))
    assert measured.limit(0) == FIRST_LIMIT_S and measured.unusual_s == math.inf
    measured.add(100.0)
    assert measured.limit(0) == 2000.0 and measured.unusual_s == 500.0


def test_short_blocks_have_a_generous_limit():
    measured = times([0.01] * 50)
    assert measured.limit(0) == LEAST_LIMIT_S and measured.unusual_s == LEAST_UNUSUAL_S


def test_the_limit_grows_with_the_blocks():
    measured = times([10.0] * KEPT)
    before = measured.limit(0)
    for _ in range(KEPT):  # a part of the volume where there is more to do
        measured.add(60.0)
    assert (before, measured.limit(0)) == (200.0, 1200.0)


def test_one_slow_block_in_many_moves_no_limit():
    assert times([10.0] * 99 + [5000.0]).limit(0) == 200.0


@pytest.mark.parametrize("timeouts", [0, 1, 4])
def test_every_time_out_doubles_the_limit(timeouts):
    assert times([], limit=7.0).limit(timeouts) == 7.0 * 2**timeouts
    assert times([10.0] * 9).limit(timeouts) == 200.0 * 2**timeouts


def test_a_configured_limit_below_what_blocks_take_gives_way():
    assert times([1.0] * 9, limit=7.0).limit(0) == 7.0
    assert times([5.0] * 9, limit=7.0).limit(0) == 15.0
