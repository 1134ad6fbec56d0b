"""A training in the run database, through outages, kills and resumptions."""

import logging
import time

import pytest

from em_blocks.db.connect import connect
from em_blocks.db.trainings.series import CHUNK
from em_blocks.db.trainings.store import TrainingStore
from em_blocks.training.records import mongo
from em_blocks.training.records.mongo import MongoRecord
from mongods import mongod


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with mongod(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def store(server, request, monkeypatch):
    monkeypatch.setattr("em_blocks.db.connect.SELECT_TIMEOUT_MS", 300)
    monkeypatch.setattr(mongo, "BEAT_S", 0.05)
    with connect(server.uri) as client:
        name = f"runs_{abs(hash(request.node.name))}"
        yield TrainingStore(client[name])


def document(iteration, uid="a"):
    return {"uid": uid, "config": {}, "state": "running", "iteration": iteration, "updated": "then"}


def started(store, folder, iteration=0, *, uid="a", curves=dict):
    record = MongoRecord(store, folder, curves)
    record.start(iteration, document(iteration, uid))
    return record


def measure(record, *steps, value=0.5):
    for step in steps:
        record.metrics(step, {"train/loss": value})


def until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_happens_is_in_the_database_soon_and_at_the_end(store, tmp_path):
    record = started(store, tmp_path)
    measure(record, 10, 20)
    record.checkpoint(20, tmp_path, document(20))
    until(lambda: store.training(record.number)["iteration"] == 20)
    found = store.training(record.number)
    assert (found["folder"], found["state"]) == (str(tmp_path), "running")
    measure(record, 30)
    record.finish("stopped", "why")
    found = store.training(record.number)
    assert (found["state"], found["reason"], found["iteration"]) == ("stopped", "why", 20)
    assert store.curves(record.number)["train/loss"].steps == [10, 20, 30]


def test_a_running_training_shows_that_it_lives(store, tmp_path):
    record = started(store, tmp_path)
    first = store.training(record.number)["heartbeat"]
    until(lambda: store.training(record.number)["heartbeat"] > first)
    record.finish("finished", None)


def test_curves_longer_than_a_chunk_are_whole_and_only_the_last_chunk_is_kept(store, tmp_path):
    record = started(store, tmp_path)
    measure(record, *range(CHUNK + 1))
    until(lambda: len(store.curves(record.number).get("train/loss", ())) == CHUNK + 1)
    measure(record, *range(CHUNK + 1, 2 * CHUNK + 2))
    record.finish("finished", None)
    assert store.curves(record.number)["train/loss"].steps == list(range(2 * CHUNK + 2))
    assert list(record._pieces._chunks["train/loss"]) == [2]


def test_a_resumed_training_has_one_document_and_no_point_twice(store, tmp_path):
    killed = started(store, tmp_path)
    measure(killed, *range(10, 40, 10))
    until(lambda: len(store.curves(killed.number).get("train/loss", ())) == 3)
    killed._ended = True  # as by a kill: nothing more is written, no end is noted
    kept = store.curves(killed.number)
    kept["train/loss"].cut(20)
    resumed = started(store, tmp_path, 20, curves=lambda: kept)
    measure(resumed, 30, 40, value=0.25)
    resumed.finish("finished", None)
    assert resumed.number == killed.number
    loss = store.curves(resumed.number)["train/loss"]
    assert (loss.steps, loss.values) == ([10, 20, 30, 40], [0.5, 0.5, 0.25, 0.25])
    assert len(store.recorded_trainings()) == 1


def test_two_trainings_at_once_do_not_mix(store, tmp_path):
    one, two = started(store, tmp_path / "1"), started(store, tmp_path / "2", uid="b")
    for step in range(20):
        measure(one, step, value=1.0)
        measure(two, step, value=2.0)
    one.finish("finished", None)
    two.finish("stopped", None)
    assert store.curves(one.number)["train/loss"].values == [1.0] * 20
    assert store.curves(two.number)["train/loss"].values == [2.0] * 20
    assert [d["state"] for d in store.recorded_trainings()] == ["finished", "stopped"]


def test_an_outage_delays_nothing_and_loses_nothing(store, server, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    record = started(store, tmp_path)
    server.kill()
    try:
        began = time.monotonic()
        measure(record, 10, 20)
        record.checkpoint(20, tmp_path, document(20))
        assert time.monotonic() - began < 0.1
        until(lambda: "the training goes on" in caplog.text)
    finally:
        server.start()
    until(lambda: "is back" in caplog.text)
    assert store.curves(record.number)["train/loss"].steps == [10, 20]
    assert store.training(record.number)["iteration"] == 20
    record.finish("finished", None)


def test_a_training_that_ends_during_an_outage_says_how_to_catch_up(
    store, server, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(mongo, "LAST_S", 0.5)
    record = started(store, tmp_path)
    server.kill()
    try:
        record.finish("finished", None)
    finally:
        server.start()
    assert f"em-blocks runs import {tmp_path}" in caplog.text
