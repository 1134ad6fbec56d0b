"""How workers are started; the cluster's commands are recording stand-ins here."""

import os
import stat

import pytest

from blockwise import add_one, make_raw, run, store_of
from em_blocks.db.server import embedded_server
from em_blocks.errors import ConfigError
from em_blocks.runtime import launch

RECORDER = """#!/bin/sh
echo "$(basename "$0") $*" >> {log}
while [ "$1" != "{python}" ]; do shift; done
exec "$@"
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """`srun` and `bsub` that record how they were called and run the worker right here."""
    import sys

    folder, log = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    for name in ("srun", "bsub"):
        path = folder / name
        path.write_text(RECORDER.format(log=log, python=sys.executable))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return log


@pytest.mark.parametrize(("launcher", "begin"), [("slurm", "srun --nodes=1"), ("lsf", "bsub -K")])
def test_a_cluster_launcher_starts_workers_by_a_command_that_waits(
    cluster, tmp_path, launcher, begin, monkeypatch
):
    # One machine plays submit host and nodes, so its own address stands for the cluster's.
    monkeypatch.setattr(launch, "_is_loopback", lambda host: False)
    with embedded_server(tmp_path / "db") as uri:
        task = add_one(make_raw(tmp_path), tmp_path / "a", launcher=launcher, db_host=uri,
                       launcher_options=["--partition=em"], num_workers=2)
        assert run(task).ok
    calls = cluster.read_text().splitlines()
    assert len(calls) >= 2
    assert all(c.startswith(f"{begin} ") and "--partition=em" in c for c in calls)
    assert not any("mongodb" in c for c in calls)  # addresses travel in files


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "'db_host' is not set"),
        ({"db_host": "localhost:27017"}, "an address of this machine only"),
        ({"db_host": "mongo.lab:27017"}, "'scheduler_host' is 127.0.0.1"),
    ],
)
def test_a_cluster_needs_addresses_that_its_nodes_can_reach(cluster, tmp_path, options, words):
    task = add_one(make_raw(tmp_path), tmp_path / "a", launcher="slurm", **options)
    with pytest.raises(ConfigError, match=words) as caught:
        run(task)
    assert caught.value.exit_code == 2 and not (tmp_path / "a").exists()


def test_slots_share_the_cores_and_take_turns_on_the_gpus(monkeypatch):
    monkeypatch.setattr(launch, "visible_gpus", lambda: ["3", "5"])
    monkeypatch.setattr(launch.os, "sched_getaffinity", lambda pid: set(range(12)))
    environments = [launch.worker_environment(4, slot) for slot in range(4)]
    assert [e["OMP_NUM_THREADS"] for e in environments] == ["3"] * 4
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments] == ["3", "5", "3", "5"]


def test_chosen_gpus_are_respected(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,7")
    assert launch.visible_gpus() == ["2", "7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert launch.visible_gpus() == []


def test_the_job_file_is_private_and_does_not_outlive_the_run(tmp_path):
    task = add_one(make_raw(tmp_path), tmp_path / "a")
    modes = []
    from em_blocks.runtime.job import Job

    save = Job.save

    def recording(self, path):
        save(self, path)
        modes.append(stat.S_IMODE(path.stat().st_mode))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "save", recording)
        assert run(task).ok
    assert modes == [0o600] and not list(task.home.rglob("job.json"))
    with store_of(task) as store:
        assert "db_host" not in store.load()["config"]
