"""Runs whose database is away: for a while, which fails no block, and for good."""

import time

import pytest

from blockwise import (
    add_one,
    assert_same_result,
    block_documents,
    make_raw,
    run,
    start_in_background,
    store_of,
    wait_for,
)
from extracting import Slow, blobs, extraction, predictions
from mongods import mongod

BLOCK = (6, 20, 13)


@pytest.fixture
def server(tmp_path):
    with mongod(tmp_path / "mongod") as server:
        yield server


def rows(task):
    with store_of(task) as store:
        return {row["_id"]: row for row in store.database.synapses.find({"run": task.run})}


def wait_for_blocks(task, n):
    with store_of(task) as store:
        wait_for(lambda: store.counts()["done"] >= n, 60)


def test_a_database_that_is_killed_and_away_for_a_while_fails_no_block(server, tmp_path):
    paths = predictions(tmp_path, blobs())
    options = {"kind": Slow, "db_host": server.uri}
    task = extraction(paths, BLOCK, run_dir=str(tmp_path / "a"), num_workers=2, **options)
    undisturbed = extraction(
        paths, BLOCK, run_dir=str(tmp_path / "b"), db_name="undisturbed", sleep_s=0.0, **options
    )
    process = start_in_background(task, tmp_path)
    wait_for_blocks(task, 2)
    server.kill()
    time.sleep(4)  # long enough for every worker to ask in vain
    server.start()
    assert process.wait(120) == 0
    assert run(undisturbed).ok
    assert rows(task) == rows(undisturbed)
    documents = block_documents(task)
    assert {d["state"] for d in documents.values()} == {"done"}
    assert {d["attempts"] for d in documents.values()} == {1}
    with store_of(task) as store:
        assert store.attempts.count_documents({}) == 0


def test_a_database_that_is_gone_for_good_ends_the_run_and_it_can_be_resumed(server, tmp_path):
    raw = make_raw(tmp_path)
    task = add_one(raw, tmp_path / "a", db_host=server.uri, num_workers=2, sleep_s=0.3, db_outage_s=4)
    process = start_in_background(task, tmp_path)
    wait_for_blocks(task, 3)
    server.kill()
    began = time.monotonic()
    assert process.wait(60) == 1
    assert time.monotonic() - began < 30
    server.start()
    report = run(task.model_copy(update={"sleep_s": 0.0}))
    assert report.ok and 0 < report.blocks["skipped"] < report.blocks["total"]
    undisturbed = add_one(raw, tmp_path / "b", db_host=server.uri, db_name="undisturbed")
    assert run(undisturbed).ok
    assert_same_result(task, undisturbed)
