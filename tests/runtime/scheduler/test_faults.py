"""Faults: poison blocks, dying workers, killed schedulers and databases."""

import json
import os
import random
import signal
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
    worker_pids,
)
from em_blocks.db.commits import CommitWriter, WorkerIdentity
from em_blocks.errors import CommitRefusedError
from em_blocks.runtime.monitoring.status import run_status
from em_blocks.tasks.base import BlockReport


@pytest.fixture
def raw(tmp_path):
    return make_raw(tmp_path)


@pytest.fixture
def undisturbed(raw, tmp_path):
    task = add_one(raw, tmp_path / "undisturbed")
    assert run(task).ok
    return task


def test_a_poison_block_is_quarantined_with_its_traceback_and_the_others_finish(raw, tmp_path):
    task = add_one(raw, tmp_path / "a", faults={"0/1/2": "raise"}, num_workers=2)
    report = run(task)
    assert not report.ok and report.exit_code == 1 and report.state == "failed"
    assert report.blocks["done"] == 29 and report.blocks["quarantined"] == 1
    document = block_documents(task)["sum/0/1/2"]
    assert document["state"] == "quarantined" and document["attempts"] == 3
    error = document["error"]
    assert (error["type"], error["stage"]) == ("ValueError", "compute")
    assert "poison" in error["traceback"] and error["peak_memory_mb"] > 10
    with store_of(task) as store:
        assert store.attempts.count_documents({"run": "sum", "block": "0/1/2"}) == 3


def test_a_quarantined_block_waits_for_retry(raw, tmp_path, undisturbed):
    task = add_one(raw, tmp_path / "a", faults={"0/1/2": "raise"}, max_retries=0)
    assert run(task).blocks["quarantined"] == 1
    healed = task.model_copy(update={"faults": {}})
    report = run(healed)
    assert report.exit_code == 1 and report.blocks["computed"] == 0
    report = run(healed, requeue=True)
    assert report.ok and report.blocks["computed"] == 1
    assert_same_result(healed, undisturbed)


def test_a_block_that_fails_once_is_retried(raw, tmp_path, undisturbed):
    task = add_one(raw, tmp_path / "a", faults={"1/0/0": "raise_once"})
    assert run(task).ok
    assert block_documents(task)["sum/1/0/0"]["attempts"] == 2
    assert_same_result(task, undisturbed)


@pytest.mark.parametrize("fault", ["kill_once", "kill_written_once"])
def test_a_killed_worker_changes_nothing(raw, tmp_path, undisturbed, fault):
    task = add_one(raw, tmp_path / "a", faults={"0/0/3": fault, "1/2/4": fault}, num_workers=2)
    run(task)
    assert run(task).ok  # commits that died with the worker are found missing and done again
    assert_same_result(task, undisturbed)


def test_a_block_that_kills_every_worker_is_reported_as_lost(raw, tmp_path):
    task = add_one(raw, tmp_path / "a", faults={"1/2/4": "kill"}, max_retries=1)
    report = run(task)
    assert not report.ok
    assert block_documents(task)["sum/1/2/4"]["error"]["type"] == "WorkerLost"
    assert run(task.model_copy(update={"faults": {}})).ok


def test_a_hanging_block_is_given_to_another_worker(raw, tmp_path, undisturbed):
    task = add_one(raw, tmp_path / "a", faults={"0/0/1": "hang_once"}, block_timeout_s=2.0)
    start = time.monotonic()
    run(task)
    assert time.monotonic() - start < 60
    assert run(task).ok
    assert_same_result(task, undisturbed)


def test_the_run_stops_when_all_first_blocks_fail_alike(raw, tmp_path):
    keys = [f"{z}/{y}/{x}" for z in range(2) for y in range(3) for x in range(5)]
    task = add_one(raw, tmp_path / "a", faults=dict.fromkeys(keys, "raise"), sleep_s=0.3,
                   max_retries=10)
    report = run(task)
    assert report.exit_code == 1 and report.state == "stopped"
    assert "blocks all failed with ValueError in stage compute" in report.reason
    assert len(block_documents(task)) < 30
    # The cause was common to all, so no block is held responsible.
    assert report.blocks["quarantined"] == 0
    assert run(task.model_copy(update={"faults": {}, "sleep_s": 0.0})).ok


def test_workers_that_cannot_start_end_the_run(raw, tmp_path):
    report = run(add_one(raw, tmp_path / "a", faults={"start": "yes"}))
    assert report.exit_code == 1
    assert "cannot start" in report.reason and "no such device" in report.reason


@pytest.mark.parametrize("victim", ["worker", "scheduler", "mongod"])
def test_killed_anywhere_and_run_again_equals_undisturbed(raw, tmp_path, undisturbed, victim):
    rng = random.Random(victim)
    task = add_one(raw, tmp_path / "a", num_workers=2, sleep_s=0.1)
    for _ in range(2):
        process = start_in_background(task, tmp_path)
        wait_for(lambda p=process: worker_pids(p) or p.poll() is not None)
        time.sleep(rng.uniform(0.3, 1.5))
        _kill(victim, process, task)
        process.wait(120)
    done = _done(task)
    report = run(task.model_copy(update={"sleep_s": 0.0}))
    assert report.ok and report.blocks["computed"] == 30 - done
    assert_same_result(task, undisturbed)


def _kill(victim, process, task):
    if victim == "scheduler":
        os.killpg(process.pid, signal.SIGKILL)
        return
    pids = worker_pids(process)[:1]
    server = task.home / "db/server.json"
    if victim == "mongod":  # gone already if the run has ended in the meantime
        pids = [json.loads(server.read_text())["pid"]] if server.exists() else []
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def _done(task):
    with store_of(task) as store:
        return store.counts()["done"]


def test_a_dead_scheduler_is_not_shown_as_running(raw, tmp_path):
    task = add_one(raw, tmp_path / "a", sleep_s=0.2)
    process = start_in_background(task, tmp_path)
    wait_for(lambda: worker_pids(process))
    with store_of(task) as store:
        assert run_status(store)["state"] == "running"
        wait_for(lambda: run_status(store)["blocks"]["running"] > 0)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        status = run_status(store)
        assert status["state"] == "stopped" and status["blocks"]["running"] == 0
        assert store.load()["state"] == "running"  # it had no time to say so


def test_a_run_survives_the_crash_of_its_embedded_mongod(raw, tmp_path, undisturbed):
    task = add_one(raw, tmp_path / "a", sleep_s=0.2)
    process = start_in_background(task, tmp_path)
    wait_for(lambda: worker_pids(process))
    time.sleep(1.0)
    _kill("mongod", process, task)
    assert process.wait(120) == 0
    assert_same_result(task, undisturbed)


def test_a_commit_of_an_older_epoch_is_refused(raw, tmp_path, undisturbed):
    task = undisturbed
    with store_of(task) as store:
        old = store.take_lease("old")
        writer = _writer(store, task, old)
        assert store.take_lease("new", from_owner="old") == old + 1
        block = task.grid().block((0, 0, 0))
        writer.done(block, time.time(), BlockReport(counts={"odd": -1}))
        with pytest.raises(CommitRefusedError, match=f"epoch {old + 1} now"):
            writer.close()
        assert store.block("0/0/0")["counts"] != {"odd": -1}


def test_an_attempt_that_fails_after_another_one_was_recorded_as_done_does_not_undo_that(undisturbed):
    task = undisturbed
    with store_of(task) as store:
        epoch = store.take_lease("me")
        store.admit_worker({"worker": "w", "epoch": epoch, "state": "working"})
        writer, block = _writer(store, task, epoch), task.grid().block((0, 0, 0))
        before = store.block(block.key)
        writer.failed(block, time.time(), {"type": "OSError", "message": "", "stage": "read"})
        writer.close()
        assert store.block(block.key) == before and before["state"] == "done"
        assert store.attempts.count_documents({"run": "sum"}) == 1  # what happened is told all the same


def _writer(store, task, epoch):
    identity = WorkerIdentity("w", epoch, "cpu")
    return CommitWriter(
        store, task.grid(), identity, max_failures=1, outage_s=10.0, on_durable=lambda blocks: None
    )


def test_a_live_lease_is_not_taken(raw, tmp_path, undisturbed):
    with store_of(undisturbed) as store:
        epoch = store.take_lease("somebody:1:1")
        assert store.take_lease("other") is None
        assert store.heartbeat(epoch) and not store.heartbeat(epoch - 1)
