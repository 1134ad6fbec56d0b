"""Trainings in Sacred's schema: the documents, and what Sacred's own reader and incense make of them.

The readers live in the environment of `make test-validators`, since Sacred needs an old setuptools.
"""

import os
import subprocess
from datetime import datetime

import pytest

from em_blocks.db.connect import connect
from em_blocks.db.server import embedded_server
from em_blocks.errors import ConfigError
from em_blocks.export.trainings.sacred import write_sacred
from em_blocks.training.records.recorded import recorded_in
from recorded_training import write_training

READ = """
import sys, warnings
warnings.simplefilter("ignore")
from incense import ExperimentLoader
from sacred.observers import MongoObserver
uri, name = sys.argv[1:]
observer = MongoObserver(url=uri, db_name=name, overwrite=2)
assert observer.overwrite["status"] == "COMPLETED" and observer.overwrite["result"] == 0.26
found = ExperimentLoader(mongo_uri=uri, db_name=name).find_by_id(2)
assert found.experiment.name == "tiny" and found.config.training.iterations == 8, found.config
loss = found.metrics["train/loss"]
assert list(loss.index) == list(range(1, 9)) and loss.iloc[0] == 2.0, loss
assert found.host.hostname and found.stop_time >= found.start_time
names = ExperimentLoader(mongo_uri=uri, db_name=name).find_by_name("tiny")
assert len(names) == 2
"""


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    with embedded_server(tmp_path_factory.mktemp("db")) as uri:
        yield uri


@pytest.fixture
def database(uri, request):
    """An empty database, and its address."""
    name = f"sacred_{abs(hash(request.node.name))}"
    with connect(uri) as client:
        yield client[name], uri.replace("/?", f"/{name}?")


@pytest.fixture
def trainings(tmp_path):
    return [recorded_in(write_training(tmp_path / name, seed=seed))
            for name, seed in (("one", 0), ("two", 1))]


def test_a_run_has_the_fields_of_sacred(database, trainings):
    database, address = database
    assert write_sacred(trainings, address) == [1, 2]
    run = database["runs"].find_one({"_id": 2})
    assert (run["status"], run["result"], run["command"]) == ("COMPLETED", 0.26, "train")
    assert run["config"]["training"]["score"] == "affinities/cut_ap"
    assert isinstance(run["start_time"], datetime) and run["start_time"] <= run["stop_time"]
    assert any(one.startswith("torch==") for one in run["experiment"]["dependencies"])
    curves = {one["name"]: one for one in database["metrics"].find({"run_id": 2})}
    assert curves["train/loss"]["steps"] == list(range(1, 9))
    assert curves["train/loss"]["values"] == [1 / n + 1 for n in range(1, 9)]
    named = {one["name"]: one["id"] for one in run["info"]["metrics"]}
    assert named == {name: str(one["_id"]) for name, one in curves.items()}


def test_another_export_replaces_a_run_and_keeps_its_number(database, trainings):
    database, address = database
    write_sacred(trainings, address)
    assert write_sacred(trainings[1:], address) == [2]
    assert database["runs"].count_documents({}) == 2
    assert database["metrics"].count_documents({"run_id": 2}) == 2


@pytest.mark.parametrize(("state", "status"), [
    ("stopped", "INTERRUPTED"), ("dead", "INTERRUPTED"), ("failed", "FAILED"), ("running", "RUNNING"),
])
def test_states_are_those_of_sacred(database, trainings, state, status):
    database, address = database
    trainings[0].document.update(state=state, reason="no disk")
    write_sacred(trainings[:1], address)
    run = database["runs"].find_one({"_id": 1})
    assert run["status"] == status
    assert ("stop_time" in run) == (state != "running")
    assert run.get("fail_trace") == (["no disk"] if state == "failed" else None)


def test_a_record_without_identity_is_refused(database, trainings):
    del trainings[0].document["uid"]
    with pytest.raises(ConfigError, match="no `uid`"):
        write_sacred(trainings, database[1])
    assert database[0]["runs"].count_documents({}) == 0


def test_sacred_and_incense_read_it(uri, database, trainings):
    python = os.environ.get("EM_BLOCKS_VALIDATORS")
    if not python:
        pytest.skip("EM_BLOCKS_VALIDATORS names no Python with sacred and incense")
    write_sacred(trainings, database[1])
    done = subprocess.run(
        [python, "-c", READ, uri, database[0].name], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
