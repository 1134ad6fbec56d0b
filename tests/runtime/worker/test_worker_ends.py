"""Runs whose workers, scheduler or disk end in the middle, and guests that do not belong."""

import errno
import os
import signal
import subprocess
import sys
import time

import psutil
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
from em_blocks.db.supervise import free_port
from em_blocks.runtime.scheduler import block_times
from mongods import mongod, small_disk


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    with mongod(tmp_path_factory.mktemp("mongod") / "server") as server:
        yield server.uri


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return make_raw(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def undisturbed(raw, uri, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    task = add_one(raw, folder, db_host=uri, db_name="undisturbed")
    assert run(task).ok
    return task


@pytest.fixture
def make(raw, uri, tmp_path):
    """A task with a database of its own, on the server that all tests share."""

    def make(folder=tmp_path / "a", **options):
        name = f"test{time.monotonic_ns()}"
        return add_one(raw, folder, **{"db_host": uri, "db_name": name, "num_workers": 2, **options})

    return make


def started(task, folder, n=2):
    """The command and its workers, once all of them work and `n` blocks are done."""
    process = start_in_background(task, folder)
    with store_of(task) as store:
        wait_for(lambda: store.workers.count_documents({}) == task.num_workers)
        wait_for(lambda: store.counts()["done"] >= n)
    return process, worker_pids(process)


def workers(task):
    with store_of(task) as store:
        return list(store.workers.find({"run": task.run}))


def n_attempts(task):
    with store_of(task) as store:
        return store.attempts.count_documents({})


def state(task):
    with store_of(task) as store:
        return store.load()["state"]


def resume(task):
    return run(task.model_copy(update={"sleep_s": 0.0, "faults": {}}))


# -- workers --------------------------------------------------------------------------------


def test_a_worker_that_is_told_to_end_finishes_its_block_and_is_replaced(
    make, undisturbed, tmp_path
):
    task = make(sleep_s=0.3)
    process, pids = started(task, tmp_path)
    os.kill(pids[0], signal.SIGTERM)
    assert process.wait(60) == 0
    assert_same_result(task, undisturbed)
    assert {d["attempts"] for d in block_documents(task).values()} == {1}
    listed = workers(task)
    assert len(listed) == 3 and {w["state"] for w in listed} == {"left"}
    # Those who look later see all of it: the last seconds count too.
    assert sum(w["done"] for w in listed) == 30 and n_attempts(task) == 0


def test_a_frozen_worker_is_given_up_and_the_run_does_not_wait_for_it(make, undisturbed, tmp_path):
    task = make(sleep_s=0.3, block_timeout_s=2.0)
    process, pids = started(task, tmp_path)
    os.kill(pids[0], signal.SIGSTOP)
    assert process.wait(60) == 0
    assert not psutil.pid_exists(pids[0])
    assert_same_result(task, undisturbed)
    (frozen,) = [w for w in workers(task) if w["pid"] == pids[0]]
    assert frozen["state"] == "revoked" and frozen["blocks"] == []
    assert n_attempts(task) == 1


def test_a_slow_block_is_tried_a_second_time_and_the_first_result_counts(
    make, undisturbed, monkeypatch
):
    monkeypatch.setattr(block_times, "LEAST_UNUSUAL_S", 1.0)
    task = make(faults={"0/1/2": "hang_once"}, speculate=True)
    report = run(task)
    assert report.ok and report.wall_s < 60
    assert_same_result(task, undisturbed)
    assert n_attempts(task) == 0 and sum(w["done"] for w in workers(task)) == 30


def test_workers_whose_commits_are_refused_end_and_are_replaced(make, undisturbed, tmp_path):
    task = make(sleep_s=0.3)
    process, pids = started(task, tmp_path)
    with store_of(task) as store:
        store.workers.delete_many({})  # nobody is admitted any more
    assert process.wait(60) == 0
    assert not {w["pid"] for w in workers(task)} & set(pids)
    assert_same_result(task, undisturbed)


# -- the scheduler ----------------------------------------------------------------------------


def test_a_scheduler_that_is_told_to_end_has_its_blocks_finished(make, undisturbed, tmp_path):
    task = make(sleep_s=0.3)
    process, _ = started(task, tmp_path)
    process.terminate()
    assert process.wait(60) == 1 and state(task) == "stopped"
    documents = block_documents(task)
    assert {d["state"] for d in documents.values()} == {"done"} and 2 <= len(documents) < 30
    assert n_attempts(task) == 0
    report = resume(task)
    assert report.ok and report.blocks["skipped"] == len(documents)
    assert_same_result(task, undisturbed)


def test_a_second_ctrl_c_hands_the_blocks_in_work_back_at_once(make, undisturbed, tmp_path):
    task = make(faults={"1/1/1": "hang", "1/1/2": "hang"}, sleep_s=0.1)
    process, pids = started(task, tmp_path, n=20)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None  # it waits for both
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) == 1 and state(task) == "stopped"
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert n_attempts(task) == 0
    assert resume(task).ok
    assert_same_result(task, undisturbed)


def test_workers_end_by_themselves_when_their_scheduler_is_killed(make, undisturbed, tmp_path):
    task = make(faults={"1/1/1": "hang", "1/1/2": "hang"}, sleep_s=0.1)
    process, pids = started(task, tmp_path, n=20)
    process.kill()
    process.wait(10)
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids), 15)
    assert resume(task).ok
    assert_same_result(task, undisturbed)


# -- the disk ---------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", 200) as folder:
        yield folder


def fill(folder):
    """Leave no byte on the disk of `folder`; the file ``ballast`` holds them."""
    with open(folder / "ballast", "wb", buffering=0) as ballast:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    ballast.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def test_a_disk_that_fills_up_stops_the_run_and_nothing_is_lost(
    make, undisturbed, disk, tmp_path
):
    task = make(disk, sleep_s=0.3)
    process, _ = started(task, tmp_path)
    fill(disk)
    assert process.wait(60) == 1
    with store_of(task) as store:
        document = store.load()
    assert document["state"] == "stopped"
    report = document["summary"]
    assert f"the disk of {disk}" in report["reason"] and "free some space" in report["reason"]
    assert report["blocks"]["quarantined"] == 0 and 2 <= report["blocks"]["done"] < 30
    log = (tmp_path / "background.log").read_text()
    assert "Traceback" not in log, log
    (disk / "ballast").unlink()
    report = resume(task)
    assert report.ok and report.blocks["skipped"] > 0
    assert_same_result(task, undisturbed)


# -- guests -----------------------------------------------------------------------------------

ROGUE = """
import sys
import daisy.v2 as daisy
port, task = sys.argv[1:]
while True:
    try:
        context = daisy.Context(hostname="127.0.0.1", port=port, task_id=task, worker_id=1, logdir="")
        client = daisy.Client(context)
        with client.acquire_block() as block:
            if block is not None:
                print("got", block, flush=True)
    except Exception as error:
        print("refused", type(error).__name__, flush=True)
"""


def test_a_daisy_client_that_does_not_belong_gets_no_block_and_changes_nothing(
    make, undisturbed, tmp_path
):
    task = make(sleep_s=0.1, scheduler_port=free_port())
    with open(tmp_path / "heard", "w") as heard:
        rogues = [
            subprocess.Popen(
                [sys.executable, "-c", ROGUE, str(task.scheduler_port), task.run],
                stdout=heard, stderr=subprocess.DEVNULL, cwd=tmp_path,
            )
            for _ in range(2)
        ]
        try:
            assert run(task).ok
        finally:
            for rogue in rogues:
                rogue.kill()
                rogue.wait()
    assert "got" not in (tmp_path / "heard").read_text()
    assert_same_result(task, undisturbed)
    assert {d["attempts"] for d in block_documents(task).values()} == {1}
    assert len(workers(task)) == 2
