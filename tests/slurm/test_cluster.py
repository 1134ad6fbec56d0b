"""The cluster that the other tests run on behaves like one, and leaves nothing behind."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pymongo
import pytest

from blockwise import wait_for
from cluster.network import required
from cluster.processes import NAMESPACES, command_line, with_variable
from cluster.slots import CONTROLLER, FOLDER, NODES
from cluster.slurm import Slurm

pytestmark = pytest.mark.slurm

TESTS = Path(__file__).parents[1]
FOREVER = "import time; time.sleep(3600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOREVER}"


@pytest.fixture(params=[False, True], ids=["loopback", "namespaces"])
def either(request, tmp_path):
    """A cluster of either kind."""
    with Slurm(tmp_path / "slurm", namespaces=request.param) as slurm:
        yield slurm


def start_job(slurm, node, code=FOREVER):
    """A job on a node, from when it runs."""
    before = len(slurm.squeue("--states=R"))
    job = slurm.run_in(
        CONTROLLER, ["srun", "-N1", "-n1", f"--nodelist=n{node}", sys.executable, "-c", code],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: len(slurm.squeue("--states=R")) > before and python_on(slurm, node))
    return job


def python_on(slurm, node):
    return [pid for pid in slurm.processes_on(node) if command_line(pid).startswith(sys.executable)]


def test_every_node_runs_jobs(either):
    nodes = either.call("srun", "-N3", "-n3", "printenv", "SLURMD_NODENAME").split()
    assert sorted(nodes) == ["n1", "n2", "n3"]


def test_nobody_listens_where_the_world_could_connect(either):
    listening = subprocess.run(
        [required("ss"), "-H", "-ltnp"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    pids = cluster_processes(either)
    ours = [line for line in listening if any(f"pid={pid}," in line for pid in pids)]
    assert all(" 127.0.0.1:" in line for line in ours)
    assert bool(ours) != either.namespaces  # in a namespace, they are not even to be seen


def test_a_cancelled_job_ends(either):
    job = start_job(either, 1)
    assert [(j.state, j.node) for j in either.squeue()] == [("R", "n1")]
    either.scancel("--user=root")
    assert job.wait(30) != 0
    wait_for(lambda: not either.squeue())


def test_a_killed_node_takes_its_job_along_and_takes_others_when_it_is_back(either):
    job = start_job(either, 2)
    either.kill_node(2)
    assert not either.processes_on(2)
    either.start_node(2)
    assert either.squeue() and job.poll() is None  # back so soon that Slurm has not noticed
    either.scancel("--user=root")
    job.wait()
    either.wait_idle()
    assert either.call("srun", "--nodelist=n2", "printenv", "SLURMD_NODENAME") == "n2\n"


def test_a_stopped_node_goes_down_while_its_job_runs_on(cluster):
    # Two traps for whoever starts workers by srun: it calls this success, and nothing ends the task.
    job = start_job(cluster, 2)
    cluster.stop_node(2)
    cluster.wait_for_nodes("down", 2)
    assert job.wait(30) == 0
    assert python_on(cluster, 2)
    cluster.start_node(2)
    cluster.wait_idle()


def test_a_cut_node_is_cut_off_until_it_is_healed(cluster):
    hello = (
        "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"
    )

    def reaches_the_controller(node):
        port = cluster.database_port - 7
        command = [sys.executable, "-c", hello, cluster.address, str(port)]
        return cluster.run_in(node, command, stderr=subprocess.DEVNULL).wait() == 0

    assert all(reaches_the_controller(n) for n in NODES)
    cluster.cut(2)
    assert [n for n in NODES if reaches_the_controller(n)] == [1, 3]
    cluster.heal(2)
    assert wait_for(lambda: reaches_the_controller(2))


def test_a_cluster_that_stops_leaves_nothing_behind(tmp_path):
    with Slurm(tmp_path / "slurm", namespaces=True) as slurm:
        jobs = [start_job(slurm, n, STUBBORN) for n in NODES]
        orphans, number = cluster_processes(slurm), slurm.socket_folder.name
        assert len(orphans) > 10
        slurm.stop_node(2)  # whose job nobody would end
    for job in jobs:
        job.wait()
    assert not running(orphans)
    assert not left_behind(number)


def test_a_cluster_that_was_killed_is_cleaned_up_by_the_next(tmp_path):
    code = (
        f"import sys, time; sys.path[:0] = [{str(TESTS)!r}]\n"
        "from cluster.slurm import Slurm\n"
        f"slurm = Slurm({str(tmp_path / 'killed')!r}, namespaces=True)\n"
        "slurm.start()\n"
        "print(slurm.environment()['SLURM_CONF'], flush=True)\n"
        "time.sleep(3600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    config = owner.stdout.readline().strip()
    orphans = with_variable("SLURM_CONF", config)
    os.kill(owner.pid, signal.SIGKILL)
    owner.communicate()
    assert len(orphans) >= 5 and set(orphans) <= set(with_variable("SLURM_CONF", config))
    with Slurm(tmp_path / "next", namespaces=True):
        assert not running(orphans)


def test_two_clusters_at_once_do_not_see_each_other(tmp_path):
    with Slurm(tmp_path / "a", namespaces=True) as a, Slurm(tmp_path / "b", namespaces=True) as b:
        job = start_job(a, 1)
        assert a.squeue() and not b.squeue()
        b.kill_node(1)
        assert python_on(a, 1)
    job.wait()


def test_the_database_asks_for_a_password_and_survives_a_crash(cluster, mongod):
    with pymongo.MongoClient(mongod.local_uri) as client:
        client.em.things.insert_one({"_id": 1})
    look = "import sys, pymongo; print(pymongo.MongoClient(sys.argv[1]).em.things.count_documents({}))"

    def count(uri):
        return cluster.run_in(
            1, [sys.executable, "-c", look, uri], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        ).communicate()

    assert count(mongod.uri())[0] == "1\n"
    assert "Authentication failed" in count(mongod.uri(password="guess"))[1]
    mongod.kill()
    mongod.start()
    assert count(mongod.uri())[0] == "1\n"


def cluster_processes(slurm):
    return with_variable("SLURM_CONF", slurm.environment()["SLURM_CONF"])


def running(pids):
    return [pid for pid in pids if command_line(pid)]


def left_behind(number):
    """Network namespaces of a number; none if another cluster has it by now."""
    with open(FOLDER / f"{number}.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return []
        return list(NAMESPACES.glob(f"em{number}-*"))
