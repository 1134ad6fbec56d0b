"""Real trainings in the run database: killed and resumed, two at once, with a secret login."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from em_blocks.db.connect import connect
from em_blocks.db.trainings.store import TrainingStore
from mongods import mongod
from tiny_setup import write_setup

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with mongod(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def store(server, request):
    with connect(server.uri) as client:
        store = TrainingStore(client[f"runs_{abs(hash(request.node.name))}"])
        store.address = f"{server.uri}/{store.database.name}"
        yield store


def training(folder, store, *options):
    run = [sys.executable, ROOT / "pipelines" / "train.py", folder, *options]
    environment = {
        "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "EM_BLOCKS_DB": store.address,
    }
    return subprocess.Popen(
        run, env=os.environ | environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finished(process):
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said


def record(folder):
    return json.loads((folder / "checkpoints" / "record.json").read_text())


def test_two_trainings_at_once_and_one_that_is_killed_and_resumed(store, tmp_path):
    """The second and the third are the same training: killed, it has the curves of the other."""
    folders = [write_setup(tmp_path / name) for name in ("a", "b")]
    options = ("--iterations", "40", "--set", "training.checkpoint_every=4")
    undisturbed, killed = (training(folder, store, *options) for folder in folders)
    deadline = time.monotonic() + 100
    while not list(folders[1].glob("checkpoints/state_*.pt")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (folders[1] / "checkpoints" / "state_40.pt").exists(), "killed too late"
    finished(training(folders[1], store, *options, "--resume"))
    finished(undisturbed)
    one, two = store.recorded_trainings()
    by_folder = {Path(document["folder"]).name: document for document in (one, two)}
    assert by_folder.keys() == {"a", "b"}
    curves = [store.curves(by_folder[name]["_id"]) for name in ("a", "b")]
    assert curves[0].keys() == curves[1].keys() >= {"train/loss", "validation/affinities/cut_ap"}
    for name, series in curves[0].items():
        if name == "train/waiting":  # a share of the time, which is never the same
            continue
        assert (series.steps, series.values) == (curves[1][name].steps, curves[1][name].values), name
    assert curves[0]["validation/affinities/cut_ap"].steps == list(range(4, 41, 4))
    document = store.training(by_folder["b"]["_id"])
    assert [start["iteration"] > 0 for start in document["starts"]] == [False, True]
    for name, value in record(folders[1]).items():
        assert document[name] == value or name == "updated", name
    assert (document["state"], document["iteration"]) == ("finished", 40)
    sums = {one["file"]: one["sha256"] for one in document["checkpoints"]}
    files = (folders[1] / "checkpoints").glob("*.safetensors")
    assert sums == {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    assert document["data"]["sources"][0]["sha256"] and document["git"]["em_blocks"]["commit"]


def test_a_stopped_training_says_so_and_its_password_is_recorded_nowhere(server, store, tmp_path):
    folder = write_setup(tmp_path / "a")
    with connect(server.uri) as client:
        client.admin.command("createUser", "me", pwd="s3cretword", roles=["root"])
    address = store.address.replace("://", "://me:s3cretword@") + "?authSource=admin"
    process = training(
        folder, store, "--db", address, "--iterations", "100000",
        "--set", "training.checkpoint_every=5", "--set", "training.validate_every=50000",
    )
    deadline = time.monotonic() + 100
    while not list(folder.glob("checkpoints/state_*.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    document = store.training(1)
    assert document["state"] == record(folder)["state"] == "stopped"
    assert "stopped by SIGINT" in document["reason"]
    assert "s3cretword" not in f"{document}{record(folder)}{said}"


def test_a_database_that_does_not_answer_ends_a_training_before_anything_is_written(tmp_path):
    folder = write_setup(tmp_path / "a")
    run = [sys.executable, ROOT / "pipelines" / "train.py", folder, "--db", "127.0.0.1:9"]
    done = subprocess.run(
        run, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "--db" in done.stderr, done.stderr
    assert not (folder / "checkpoints").exists()
