"""Causes that end a step: only those that no further block could escape."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from dispatching import work
from em_blocks.runtime.scheduler import circuit_breaker
from em_blocks.runtime.scheduler.circuit_breaker import CircuitBreaker
from em_blocks.runtime.scheduler.dispatch import StepProgress
from em_blocks.runtime.scheduler.scheduled_step import ScheduledStep


class Store:
    """Answers what failed so far."""

    def __init__(self, *groups):
        self.groups = groups

    def failure_groups(self, epoch):
        assert epoch == 7
        return list(self.groups)


def failed(kind="ValueError", blocks=0, starts=0):
    return {"type": kind, "stage": "compute", "message": "poison", "blocks": blocks, "starts": starts}


def breaker(*groups, n=300, done=0, num_workers=2, unproductive=0, joined=True):
    step = ScheduledStep(work((1, 1, n), num_workers=num_workers), Store(*groups), None, "", 7)
    registry = SimpleNamespace(unproductive=unproductive, any_joined=joined)
    return CircuitBreaker(step, StepProgress(done=done), registry)


def reason(*groups, **options):
    return breaker(*groups, **options).check(lambda: "killed")


@pytest.mark.parametrize(
    ("kind", "num_workers", "enough"),
    [("ValueError", 1, 3), ("ValueError", 2, 4), ("ValueError", 9, 18), ("VolumeError", 9, 100)],
)
def test_first_blocks_that_all_fail_alike_end_a_step(kind, num_workers, enough):
    assert reason(failed(kind, enough - 1), num_workers=num_workers) is None
    why = f"the first {enough} blocks all failed with {kind} in stage compute: poison"
    assert reason(failed(kind, enough), num_workers=num_workers) == why
    assert reason(failed(kind, enough), num_workers=num_workers, done=1) is None
    assert reason(failed(kind, enough), failed("OSError", 1), num_workers=num_workers) is None


def test_a_step_whose_blocks_all_failed_has_nothing_left_to_stop():
    assert reason(failed(blocks=8), n=8) is None
    assert reason(failed(blocks=8), n=9) is not None


def test_workers_that_cannot_start_end_a_step():
    assert reason(failed(starts=2)) is None
    assert reason(failed(starts=3)) == (
        "workers cannot start, with ValueError in stage compute: poison"
    )


@pytest.mark.parametrize(("joined", "enough"), [(True, 5 + 10), (False, 5 + 2)])
def test_workers_that_die_before_their_first_block_end_a_step(joined, enough):
    assert reason(unproductive=enough - 1, joined=joined) is None
    assert reason(unproductive=enough, joined=joined) == (
        "workers die before they finish a block: killed"
    )


def test_a_full_disk_ends_a_step_even_after_blocks_were_done(tmp_path, monkeypatch):
    step = breaker(done=3)
    step._folders = [Path("/no/such/folder"), tmp_path]

    def free(nbytes):
        usage = SimpleNamespace(free=nbytes)
        monkeypatch.setattr(circuit_breaker.psutil, "disk_usage", lambda folder: usage)
        return step.check(lambda: "")

    assert free(64e6) is None
    assert free(63.9e6).startswith(f"the disk of {tmp_path} is full (64 MB are free, 64 MB are kept")
