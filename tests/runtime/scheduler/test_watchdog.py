"""The watch over a run: what ends it, what it says, and what it writes for others to read."""

import io
import threading

import pymongo
import pytest
from rich.console import Console

from blockwise import wait_for
from dispatching import work
from em_blocks.db.connect import connect
from em_blocks.db.runs import RunStore
from em_blocks.db.server import embedded_server
from em_blocks.runtime.scheduler import watchdog as watchdog_module
from em_blocks.runtime.scheduler.circuit_breaker import CircuitBreaker
from em_blocks.runtime.scheduler.dispatch import StepProgress, Worker
from em_blocks.runtime.scheduler.scheduled_step import ScheduledStep
from em_blocks.runtime.scheduler.watchdog import Watchdog
from em_blocks.runtime.scheduler.worker_registry import Member, WorkerRegistry


@pytest.fixture(scope="module")
def mongo(tmp_path_factory):
    with embedded_server(tmp_path_factory.mktemp("db")) as uri, connect(uri) as client:
        yield client


@pytest.fixture
def store(mongo, request):
    store = RunStore(mongo, "em_blocks", request.node.name[:60])
    store.create({}, epoch=0)
    return store


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(watchdog_module, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(watchdog_module, "SHOW_S", 0.02)


class Watch:
    """Watches one run of four blocks until the test is over."""

    def __init__(self, store, outage_s=30.0):
        self.epoch = store.take_lease("me:1:1")
        self.store, self.said, self.progress = store, io.StringIO(), StepProgress()
        self.registry = WorkerRegistry([store], [self.epoch])
        console = Console(file=self.said, width=300)
        self.step = ScheduledStep(work(run=store.run), store, None, "", self.epoch)
        self.dog = Watchdog(
            [self.step], [self.progress], self.registry, console, outage_s=outage_s
        )


def test_a_run_that_another_scheduler_took_over_ends(store):
    watch = Watch(store)
    with watch.dog:
        store.take_lease("other:1:1", from_owner="me:1:1")
        wait_for(lambda: watch.dog.reason)
    assert "another scheduler took the run over" in watch.dog.reason


def test_a_watch_that_fails_ends_the_run(store, monkeypatch):
    watch = Watch(store)
    monkeypatch.setattr(CircuitBreaker, "check", lambda self, words: {}["lost"])
    with watch.dog:
        wait_for(lambda: watch.dog.reason)
    assert watch.dog.reason == "its watchdog failed with KeyError: 'lost'"


def test_a_database_that_is_away_for_too_long_ends_the_run(store, monkeypatch):
    watch = Watch(store, outage_s=0.2)

    def away(epoch):
        raise pymongo.errors.AutoReconnect("connection refused")

    with watch.dog:
        monkeypatch.setattr(store, "heartbeat", away)
        wait_for(lambda: watch.dog.reason)
    assert watch.dog.hopeless
    assert watch.dog.reason.startswith("the database was unavailable for 0 s (connection refused")
    assert watch.said.getvalue().count("The database does not answer") == 1


def test_a_database_that_comes_back_in_time_ends_nothing(store, monkeypatch):
    watch, back = Watch(store), threading.Event()
    heartbeat, beats = store.heartbeat, []

    def away(epoch):
        if not back.is_set():
            raise pymongo.errors.AutoReconnect("connection refused")
        beats.append(epoch)
        return heartbeat(epoch)

    with watch.dog:
        monkeypatch.setattr(store, "heartbeat", away)
        wait_for(lambda: "does not answer" in watch.said.getvalue())
        back.set()
        wait_for(lambda: len(beats) > 2)
    assert watch.dog.reason is None


# -- what it writes --------------------------------------------------------------------------------


def member(name="w"):
    return Member(Worker(name, "node-1"), 1, "cpu", "0.1")


def test_losses_that_were_half_written_are_recorded_once(store, monkeypatch):
    registry, lost = WorkerRegistry([store], [1]), member()
    registry.joined(lost)
    for x in range(3):
        registry.lost_block(lost, (0, 0, 0, x), "WorkerLost", "its host does not answer")
    record, calls = store.record_loss, []

    def breaks(*given):
        calls.append(given)
        if len(calls) == 2:
            raise pymongo.errors.AutoReconnect("connection closed")
        record(*given)

    monkeypatch.setattr(store, "record_loss", breaks)
    with pytest.raises(pymongo.errors.AutoReconnect):
        registry.flush()
    registry.flush()
    found = sorted(a["block"] for a in store.attempts.find({"run": store.run}))
    assert found == ["0/0/0", "0/0/1", "0/0/2"]


def test_the_end_of_a_worker_is_written_though_the_database_was_away(store, monkeypatch):
    registry, one = WorkerRegistry([store], [1]), member()
    registry.joined(one)
    registry.admit(one, 0)
    update = store.update_workers

    def away(documents):
        raise pymongo.errors.AutoReconnect("connection closed")

    monkeypatch.setattr(store, "update_workers", away)
    one.done = 3
    registry.left(one, "lost", "its host does not answer")
    with pytest.raises(pymongo.errors.AutoReconnect):
        registry.flush()
    monkeypatch.setattr(store, "update_workers", update)
    registry.flush()
    found = store.workers.find_one({"run": store.run})
    assert (found["state"], found["done"]) == ("lost", 3) and found["left"] is not None
