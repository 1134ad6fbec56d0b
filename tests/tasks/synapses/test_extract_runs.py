"""`em-blocks extract-synapses` with real workers and database: faults, damage, several runs."""

import json
import math
import os

import pytest
from click.testing import CliRunner

from blockwise import block_documents, run, start_in_background, store_of, wait_for, worker_pids
from em_blocks.cli.main import main
from em_blocks.db.synapses import SynapseStore
from extracting import SHAPE, Faulty, blobs, extraction, predictions

BLOCK = (6, 20, 13)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return predictions(tmp_path_factory.mktemp("predictions"), blobs())


@pytest.fixture(scope="module")
def finished(paths, tmp_path_factory):
    """A finished run that no test changes for good."""
    task = extraction(paths, BLOCK, run_dir=str(tmp_path_factory.mktemp("finished")))
    assert run(task).ok
    return task


def rows(task):
    """All documents of the run, by id."""
    with store_of(task) as store:
        return {row["_id"]: row for row in store.database.synapses.find({"run": task.run})}


def counts(task):
    return {key: (d["state"], d["counts"], d["checksums"]) for key, d in block_documents(task).items()}


def call(verb, task, tmp_path, *arguments):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(task.model_dump(mode="json")))
    before = dict(os.environ)  # `replay` sets threads for its own process, which is ours here
    try:
        return CliRunner().invoke(main, [verb, str(config), *arguments], catch_exceptions=False)
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_a_run_reports_what_it_found_and_where(finished):
    report = json.loads((finished.home / "summary.json").read_text())
    assert report["counts"]["synapses"] == len(rows(finished)) > 10
    assert report["outputs"] == {"synapses": "em_blocks.synapses"}
    assert report["counts"]["outside"] == sum("outside" in r["flags"] for r in rows(finished).values())


def test_a_disturbed_run_stores_the_same_rows_once(paths, finished, tmp_path):
    faults = {"0/0/0": "raise_once", "1/1/2": "kill_half_once", "0/1/3": "kill_written_once"}
    task = extraction(paths, BLOCK, kind=Faulty, faults=faults, run_dir=str(tmp_path))
    assert run(task).ok
    assert len(list(tmp_path.glob("fault-*"))) == 3
    assert rows(task) == rows(finished) and counts(task) == counts(finished)


def test_a_killed_scheduler_is_replaced_by_the_same_command(paths, finished, tmp_path):
    faults = {"1/0/1": "kill_half_once"}
    task = extraction(paths, BLOCK, kind=Faulty, faults=faults, run_dir=str(tmp_path))
    process = start_in_background(task, tmp_path)
    wait_for(lambda: worker_pids(process) or process.poll() is not None)
    os.killpg(process.pid, 9)
    process.wait()
    assert run(task).ok
    assert rows(task) == rows(finished) and counts(task) == counts(finished)


def test_verify_finds_rows_that_are_missing_changed_or_foreign(finished, tmp_path):
    expected, known = rows(finished), counts(finished)
    assert call("verify", finished, tmp_path).exit_code == 0
    by_block = {row["block"]: row for row in expected.values()}
    lost, moved, doubled = (by_block[key] for key in sorted(by_block)[:3])
    with store_of(finished) as store:
        store.database.synapses.delete_one({"_id": lost["_id"]})
        store.database.synapses.update_one({"_id": moved["_id"]}, {"$inc": {"pre.position.1": 1e-9}})
        store.database.synapses.insert_one({**doubled, "_id": 10**9})
        # What others add, like segments, is not what the blocks wrote.
        store.database.synapses.update_many({"run": finished.run}, {"$set": {"post.segment": 7}})
    result = call("verify", finished, tmp_path, "--json")
    damaged = {entry["block"] for entry in json.loads(result.stdout)["damaged"]}
    assert damaged == {row["block"] for row in (lost, moved, doubled)} and result.exit_code == 1
    assert run(finished).blocks["computed"] == 3
    with store_of(finished) as store:
        store.database.synapses.update_many({"run": finished.run}, {"$unset": {"post.segment": 1}})
    assert rows(finished) == expected and counts(finished).keys() == known.keys()
    assert call("verify", finished, tmp_path).exit_code == 0


def test_plan_and_replay_change_no_row(finished, tmp_path):
    expected = rows(finished)
    result = call("replay", finished, tmp_path, "1/1/1")
    assert "equals the one in the database" in result.stdout
    assert call("plan", finished, tmp_path, "--json").exit_code == 0
    assert rows(finished) == expected


def test_a_plan_needs_no_database(paths, tmp_path):
    task = extraction(paths, BLOCK, run_dir=str(tmp_path / "none"))
    result = call("plan", task, tmp_path, "--json")
    assert json.loads(result.stdout)["total"]["memory_mb"] > 0
    assert not task.home.exists()


def test_runs_in_one_database_have_ids_of_their_own(paths, finished, tmp_path):
    task = extraction(paths, (12, 15, 50), run_dir=str(tmp_path))
    other = task.model_copy(update={"run": "other"})
    assert run(task).ok and run(other).ok
    assert rows(task).keys() == rows(finished).keys()
    with store_of(other) as store:
        first = SynapseStore(store.client, other.db_name, "other").reserve_ids(math.prod(SHAPE))
    assert {id - first for id in rows(other)} == rows(task).keys()
    coarser = extraction(paths, (12, 40, 50), run_dir=str(tmp_path))
    assert run(coarser, overwrite=True).ok  # its own rows go, those of the other run stay
    assert rows(coarser).keys() == rows(finished).keys() and len(rows(other)) == len(rows(finished))
    assert {row["block"] for row in rows(coarser).values()} == {"0/0/0"}
    with store_of(task) as store:
        store.database.synapses.insert_one({"_id": 10**9, "run": "third", "block": "0/0/0"})
    third = task.model_copy(update={"run": "third"})
    result = call("extract-synapses", third, tmp_path)
    assert result.exit_code == 3 and "synapses of run 'third'" in result.output
