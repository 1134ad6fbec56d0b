"""What a person sees of runs: rate, map, failures, workers; also while the database is away."""

import base64
import json
import os
import signal
from datetime import timedelta

import numpy as np
import pytest

from blockwise import add_one, make_raw, run, store_of
from em_blocks.db.connect import database_home
from em_blocks.errors import ConfigError, DatabaseError, GeometryError
from em_blocks.runtime.monitoring import watch
from em_blocks.runtime.monitoring.block_map import STATES, section_map
from em_blocks.runtime.monitoring.overview import StepView, block_details, overview
from em_blocks.runtime.monitoring.status import run_status
from em_blocks.runtime.monitoring.watch import Database, Watcher
from recorded import EVIL, Recorded, stores

EDGES = StepView("edges", "em-blocks replay c.json {block} --step edges")
VOXELS = 10 * 100 * 100


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run folder whose database stays up."""
    home = tmp_path_factory.mktemp("overview")
    with stores(home):
        yield home


@pytest.fixture
def made(home, request):
    """A recorded run of its own for each test."""
    with stores(home, request.node.name) as (store,):
        yield Recorded(store)


def array(section, name, dtype):
    return np.frombuffer(base64.b64decode(section[name]), dtype).reshape(section["shape"])


# -- rate and time left ---------------------------------------------------------------------


def test_the_rate_of_few_blocks_counts_from_the_start(made):
    made.first_done(12, ago=30)
    status = run_status(made.store)
    assert status["state"] == "running"
    assert status["rate_mvox_s"] == pytest.approx(12 * VOXELS / 1e6 / 600, rel=0.1)
    assert status["eta_s"] == pytest.approx(600 * 48 / 12, rel=0.1)


def test_the_time_left_follows_a_run_that_has_become_slower(home):
    with stores(home, "slower") as (store,):
        made = Recorded(store, (10, 10, 10))
        blocks = list(made.grid.blocks())
        for n in range(100):  # ten a second, five minutes ago
            made.done(blocks[n].key, ago=300 + n / 10)
        for n in range(80):  # and one a second since
            made.done(blocks[100 + n].key, ago=n + 0.5)
        status = run_status(store)
    assert status["rate_mvox_s"] == pytest.approx(VOXELS / 1e6, rel=0.15)
    assert status["eta_s"] == pytest.approx(820, rel=0.15)


def test_a_run_that_has_ended_shows_the_rate_of_its_summary(made):
    made.first_done(60)
    made.end("done", mvox_s=3.25)
    status = run_status(made.store)
    assert (status["state"], status["rate_mvox_s"], status["eta_s"]) == ("done", 3.25, 0.0)


def test_a_run_whose_scheduler_died_keeps_the_rate_that_it_had(made):
    made.first_done(30)
    made.store.runs.update_one(
        {"_id": made.store.run}, {"$set": {"lease.heartbeat": made.start + timedelta(seconds=100)}}
    )
    status = run_status(made.store)
    assert status["state"] == "stopped" and status["eta_s"] is None
    assert status["rate_mvox_s"] == pytest.approx(30 * VOXELS / 1e6 / 100, rel=0.01)


# -- the map --------------------------------------------------------------------------------


def test_a_section_shows_every_block_at_its_place(made):
    made.done("1/0/2", seconds=4.5, host="node7", worker="w3")
    made.done("0/0/0")
    made.failed("1/3/4")
    made.failed("1/2/0", state="failed", tries=1)
    made.worker("w1", blocks=["1/1/1", "2/0/0"])
    section = section_map(made.store, 1)
    states = np.array(STATES)[array(section, "state", "u1")]
    wanted = np.full((4, 5), "waiting", states.dtype)
    wanted[0, 2], wanted[3, 4], wanted[2, 0], wanted[1, 1] = "done", "quarantined", "failed", "running"
    assert np.array_equal(states, wanted)
    seconds = array(section, "seconds", "<f4")
    assert seconds[0, 2] == 4.5 and np.isnan(seconds).sum() == 19
    assert array(section, "attempts", "u1").tolist()[3] == [0, 0, 0, 0, 3]
    assert section["hosts"][array(section, "host", "<u2")[0, 2]] == "node7"
    assert section["workers"][array(section, "worker", "<u2")[0, 2]] == "w3"
    assert array(section, "host", "<u2")[0, 0] == 0xFFFF


def test_sections_are_not_mixed_up_by_their_names(home):
    """Ids sort as text: 1/, 10/, 100/."""
    zs = (0, 1, 10, 11, 100)
    with stores(home, "deep") as (store,):
        made = Recorded(store, (101, 1, 2))
        for key in ("1/0/0", "10/0/1", "100/0/0"):
            made.done(key)
        done = {z: np.flatnonzero(array(section_map(store, z), "state", "u1")) for z in zs}
    assert {z: found.tolist() for z, found in done.items()} == {0: [], 1: [0], 10: [1], 11: [], 100: [0]}


def test_what_is_held_by_nobody_alive_does_not_run(made):
    made.worker("w1", blocks=["0/1/1"])
    made.worker("w2", blocks=["0/1/2"], state="lost")
    assert (array(section_map(made.store, 0), "state", "u1") == 1).sum() == 1
    made.end("stopped")
    assert not array(section_map(made.store, 0), "state", "u1").any()


def test_what_a_done_run_has_no_record_of_was_masked(made):
    made.first_done(10)
    made.end("done")
    states = array(section_map(made.store, 0), "state", "u1").ravel()
    assert [STATES[n] for n in states] == ["done"] * 10 + ["masked"] * 10


def test_a_section_that_is_not_there_is_an_error(made):
    with pytest.raises(GeometryError, match="the grid has 3"):
        section_map(made.store, 3)


# -- failures, workers, one block ------------------------------------------------------------


def test_failures_are_grouped_by_error_those_that_still_fail_first(made):
    made.failed("0/0/0", kind="OSError", message="cured", tries=5)
    made.done("0/0/0")  # another try was better
    made.failed("0/0/1")
    made.failed("2/3/4")
    found = overview({EDGES: made.store})
    assert [(f["type"], f["blocks"], f["tries"]) for f in found["failures"]] == [
        ("ValueError", 2, 6), ("OSError", 0, 5),
    ]
    failure = found["failures"][0]
    assert failure["message"] == EVIL and "Traceback" in failure["traceback"]
    assert failure["hosts"] == ["node0", "node1", "node2"]
    assert failure["replay"] == f"em-blocks replay c.json {failure['block']} --step edges"
    assert found["steps"][0]["failing_sections"] == [0, 2]


def test_a_block_lost_with_its_worker_is_listed_without_a_try(made):
    made.store.mark_failed(made.grid, (1, 1, 1), 1, {
        "type": "WorkerLost", "stage": None, "traceback": None, "message": "the worker died"})
    (failure,) = overview({EDGES: made.store})["failures"]
    assert (failure["type"], failure["blocks"], failure["tries"]) == ("WorkerLost", 1, 0)
    assert failure["block"] == "1/1/1" and failure["message"] == "the worker died"


def test_workers_are_listed_with_their_rates_those_at_work_first(made):
    now = made.store.now()
    made.worker("gone", state="lost", reason="silent for 30 s", heartbeat=now - timedelta(seconds=60))
    made.worker("busy", blocks=["0/0/1"])
    made.worker("mute", heartbeat=now - timedelta(seconds=40))
    found = overview({EDGES: made.store})
    assert {w["worker"]: w["state"] for w in found["workers"]} == {
        "busy": "working", "mute": "silent", "gone": "lost"}
    assert found["workers"][0]["worker"] == "busy"
    assert found["workers"][0]["blocks_per_s"] == pytest.approx(50 / 100, rel=0.05)
    assert found["worker_states"] == {"lost": 1, "working": 2}


def test_a_worker_of_several_steps_is_one_worker(home, made):
    with stores(home, "second") as (store,):
        second = Recorded(store)
        made.worker("both", blocks=["0/0/1"])
        second.worker("both", blocks=["2/0/0"])
        found = overview({EDGES: made.store, StepView("lut", "{block}"): store})
    (worker,) = found["workers"]
    assert sorted(worker["blocks"]) == ["edges 0/0/1", "lut 2/0/0"] and worker["done"] == 50
    assert found["worker_states"] == {"working": 1}


def test_a_block_is_told_with_place_error_and_command(made):
    made.failed("2/1/3")
    details = block_details(EDGES, made.store, "2/1/3")
    assert details["offset_nm"] == pytest.approx((400 + 2 * 400, 46 + 460, 9.2 + 3 * 460))
    assert details["shape"] == (10, 100, 100)
    assert details["record"]["error"]["message"] == EVIL
    assert [a["host"] for a in details["attempts"]] == ["node2", "node1", "node0"]
    assert details["replay"].endswith("2/1/3 --step edges")
    assert block_details(EDGES, made.store, "0/0/0")["record"] is None
    with pytest.raises(GeometryError):
        block_details(EDGES, made.store, "9/0/0")


def test_steps_that_were_not_started_are_waiting(home, made):
    with stores(home, "later") as (later,):
        found = overview({EDGES: made.store, StepView("segments", "x {block}"): later})
        assert found["steps"][1] == {
            "step": "segments", "run": "later", "replay": "x {block}", "state": "waiting"}
        with pytest.raises(ConfigError, match="not started"):
            section_map(later, 0)


def test_an_overview_is_json(made):
    made.first_done(5)
    made.failed("2/0/0")
    made.worker("w1")
    json.dumps([overview({EDGES: made.store}), section_map(made.store, 2),
                block_details(EDGES, made.store, "2/0/0")])


def test_a_real_run_with_a_poisoned_block_is_shown(tmp_path):
    task = add_one(make_raw(tmp_path), tmp_path / "a", faults={"1/2/3": "raise"}, max_retries=1)
    assert not run(task).ok
    with store_of(task) as store:
        found = overview({EDGES: store})
        section = section_map(store, 1)
    (step,) = found["steps"]
    assert (step["state"], step["failing_sections"]) == ("failed", [1])
    assert step["rate_mvox_s"] > 0
    (failure,) = found["failures"]
    assert (failure["block"], failure["message"]) == ("1/2/3", "this block is poison")
    states = array(section, "state", "u1")
    assert STATES[states[2, 3]] == "quarantined" and (states == STATES.index("done")).sum() == 14
    assert np.isfinite(array(section, "seconds", "<f4")).sum() == 14


# -- a database that comes and goes -----------------------------------------------------------


def test_watching_may_begin_before_the_run(tmp_path):
    task = add_one_of(tmp_path)
    database = Database({EDGES: task})
    watcher = Watcher(database.stores)
    try:
        snapshot = watcher.refresh()
        assert snapshot["looked"] is None
        assert "no run of this config was started" in snapshot["away"]["message"]
        assert not database_home(task.home).exists()
        with pytest.raises(DatabaseError):
            watcher.store("edges")
        with stores(task.home, task.run) as (store,):
            Recorded(store)
            snapshot = watcher.refresh()
        assert snapshot["away"] is None and snapshot["steps"][0]["state"] == "running"
        # It holds the server: what was there is still shown when the run has gone.
        assert watcher.refresh()["away"] is None
    finally:
        database.close()


def test_a_server_that_hangs_is_reported_and_forgiven(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "QUERY_S", 1.0)
    task = add_one_of(tmp_path)
    with stores(task.home, task.run) as (store,):
        Recorded(store).first_done(3)
        database = Database({EDGES: task})
        watcher = Watcher(database.stores)
        before = watcher.refresh()
        pid = json.loads((database_home(task.home) / "server.json").read_text())["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            away = watcher.refresh()
            assert away["steps"] == before["steps"] and away["looked"] == before["looked"]
            assert watcher.refresh()["away"]["since"] == away["away"]["since"]
        finally:
            os.kill(pid, signal.SIGCONT)
        assert watcher.refresh()["away"] is None
        database.close()


def add_one_of(folder):
    """A task whose database is that of `folder`; its volume need not exist."""
    from blockwise import AddOne

    return AddOne.from_dict({"run": "sum", "block_shape": (10, 10, 10), "raw": "never",
                             "output": str(folder / "a/out.zarr")})
