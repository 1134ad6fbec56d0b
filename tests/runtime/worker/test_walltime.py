"""Leaving in time, by clocks that the tests set."""

import pytest

from em_blocks.runtime.worker import walltime
from em_blocks.runtime.worker.walltime import MARGIN_S, Walltime

NOW = 1_700_000_000.0


class Clock:
    """Time passes only while somebody sleeps."""

    def __init__(self):
        self.now = NOW

    def time(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Leaver:
    """A client whose blocks take `longest_s`."""

    def __init__(self, longest_s):
        self.longest_s, self.within_s = longest_s, None

    def leave(self, within_s):
        self.within_s = within_s


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(walltime, "time", clock := Clock())
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    return clock


@pytest.fixture
def process(clock, monkeypatch):
    """This process began a minute ago."""

    class Process:
        def create_time(self):
            return NOW - 60.0

    monkeypatch.setattr(walltime.psutil, "Process", Process)


def test_slurm_knows_best_when_the_job_ends(process, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1700003600")
    assert Walltime.of_this_job(5) == Walltime(NOW + 3600.0, MARGIN_S)


def test_the_configured_minutes_count_from_the_start_of_the_process(process):
    assert Walltime.of_this_job(20) == Walltime(NOW + 19 * 60, MARGIN_S)


def test_short_jobs_have_a_short_margin(process):
    assert Walltime.of_this_job(2).margin_s == 12.0


def test_without_a_walltime_nobody_has_to_leave(process):
    unlimited = Walltime.of_this_job(None)
    assert not unlimited.due(1e9)
    unlimited.leave_in_time(None)  # starts nothing that could touch the client


@pytest.mark.parametrize("longest_s", [0.0, 20.0, 100.0])
def test_a_worker_leaves_before_a_block_might_be_cut(clock, longest_s):
    client = Leaver(longest_s)
    Walltime(NOW + 1000.0)._watch(client)
    left_at = clock.now - NOW
    needed = 1.5 * longest_s + MARGIN_S
    assert 1000.0 - needed < left_at <= 1000.0 - needed + walltime.CHECK_S + 0.01
    # What it has in work may take as long as the longest so far, and the job still ends after that.
    assert longest_s < client.within_s < 1000.0 - left_at


def test_a_job_that_is_almost_over_takes_no_block(clock):
    client = Leaver(0.0)
    Walltime(NOW + 5.0)._watch(client)
    assert clock.now == NOW and client.within_s <= 0
