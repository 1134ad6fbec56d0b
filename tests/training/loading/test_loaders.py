"""Batches come in order and are the same for any number of loaders, which never block a training."""

import os
import signal
import struct
import time
from contextlib import closing
from multiprocessing import Pipe

import numpy as np
import pytest

from em_blocks.errors import ConfigError, RunFailedError
from em_blocks.models.config import SetupConfig
from em_blocks.training.data.sources import open_sources
from em_blocks.training.loading import loaders as module
from em_blocks.training.loading.batches import Batches
from em_blocks.training.loading.loaders import Loaders, usual_loaders
from em_blocks.training.loading.stream import BatchStream
from tiny_setup import tiny_config

CONTEXT = (0, 2, 2)


def config(**training):
    values = tiny_config()
    values["training"] |= training
    return SetupConfig.from_dict(values)


def batches(made, first=0, last=10**6):
    stream = BatchStream(made, open_sources(made.training.sources, made), CONTEXT)
    return Batches(made, stream, CONTEXT, first, last)


@pytest.fixture
def two():
    """Loaders that have made their first batches."""
    loaders = Loaders(config(), CONTEXT, 0, 10**6, 2)
    with closing(loaders):
        loaders.get(0), loaders.get(1)
        yield loaders


def drained(loaders):
    """Ask for batches until those that were on their way have come."""
    for index in range(2, 200):
        loaders.get(index)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_batches_are_the_same_for_any_number_of_loaders_which_end_with_them(monkeypatch):
    started, start = [], module._start
    monkeypatch.setattr(module, "_start", lambda c: started.append(start(c)) or started[-1])
    plain = list(batches(config(batch_size=2), 3, 8))
    made = batches(config(batch_size=2, loaders=3), 3, 8)
    assert not started  # before the first is asked for
    found = list(made)
    assert len(found) == 5 and len(started) == 3
    for one, other in zip(plain, found, strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)
        for a, b in zip(one.samples, other.samples, strict=True):
            np.testing.assert_array_equal(a.truth.labels["labels"], b.truth.labels["labels"])
    assert not np.array_equal(plain[0]["raw"], plain[1]["raw"])
    assert all(process.poll() is not None for process in started)


def test_signals_to_all_processes_leave_the_end_to_the_training_but_kill_is_an_error(two):
    [pid, other] = two.processes
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert os.getpgid(pid) != os.getpgid(0)  # Ctrl-C does not even reach it
    for index in range(2, 20):
        assert two.get(index)["raw"].shape == (1, 1, 4, 20, 20)
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(RunFailedError, match=rf"process {pid}\) ended by signal 9 .*--resume"):
        drained(two)
    assert time.monotonic() - began < 20
    assert is_running(other)


def test_a_loader_that_hangs_is_an_error_and_one_without_its_training_ends(two, monkeypatch):
    monkeypatch.setattr(module, "SILENT_S", 2.0)
    [pid, _] = two.processes
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(RunFailedError, match=rf"process {pid}\) made no progress .* for 2 s"):
        drained(two)
    [_, other] = two._loaders
    other.connection.close()
    assert other.process.wait(timeout=20) == 0
    two.close()
    assert time.monotonic() - began < 20
    assert not is_running(pid)


def test_a_message_of_which_only_a_part_comes_is_no_endless_wait():
    ours, theirs = Pipe()
    with ours, theirs:
        os.write(theirs.fileno(), struct.pack("!i", 1000) + bytes(10))
        module.limit_reads(ours, 0.3)
        began = time.monotonic()
        with pytest.raises(BlockingIOError):
            ours.recv()
        assert 0.2 < time.monotonic() - began < 20


def test_an_error_of_a_loader_is_raised_as_its_own_kind():
    made = batches(config(loaders=1, sampling={"sites": 1.0}))
    with closing(made), pytest.raises(ConfigError, match="200 held no postsynaptic site"):
        next(iter(made))


def test_the_share_of_waiting_counts_from_the_first_batch():
    made = batches(config())
    assert made.waiting == 0.0
    with closing(made):
        asked = iter(made)
        next(asked)
        time.sleep(0.5)  # a step, during which the next batches are made
        next(asked)
        assert made.waiting < 0.2
        for _ in range(30):
            next(asked)
        assert made.waiting > 0.3


def test_one_core_is_left_to_the_training(monkeypatch):
    for cores, expected in ((1, 1), (2, 1), (4, 3), (64, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)))
        assert usual_loaders() == expected
