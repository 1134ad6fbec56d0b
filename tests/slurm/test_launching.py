"""How workers come to a real Slurm, leave it in time, and what they say when they cannot work."""

import subprocess
import sys
from urllib.parse import quote_plus

import pytest

from blockwise import assert_same_result, wait_for
from cluster.mongod import PASSWORD
from cluster.network import required
from cluster.processes import command_line, with_variable
from cluster.slots import CONTROLLER
from em_blocks.runtime.protocol.job import session_path

pytestmark = pytest.mark.slurm


def test_workers_of_an_array_leave_before_their_walltime_and_are_replaced(site, raw, undisturbed):
    task = site.task(raw, num_workers=3, sleep_s=2.0,
                     cluster={"array": True, "walltime_min": 1, "cpus": 2, "memory_gb": 0.5})
    process = site.start(task)
    wait_for(lambda: len(site.workers(task, state="working")) == 3, 60)
    (job, *_), node = site.cluster.squeue()[:2], {j.node for j in site.cluster.squeue()}
    assert node == {"n1", "n2", "n3"}  # both CPUs of each are taken
    site.cluster.scancel(job.id)
    assert process.wait(200) == 0, site.log()
    assert_same_result(site.here(task), undisturbed)
    workers = site.workers(task)
    assert len(workers) >= 6 and {w["state"] for w in workers} == {"left"}, workers
    for worker in workers:
        assert (worker["left"] - worker["joined"]).total_seconds() < 60
    # Slurm ended none of them.
    assert "TIMEOUT" not in (site.cluster.folder / "jobs.log").read_text()
    wait_for(lambda: not site.cluster.squeue())


def test_workers_that_are_submitted_by_hand_join_and_leave(site, raw, undisturbed):
    task = site.task(raw, launcher="external", sleep_s=0.5)
    process = site.start(task)
    session = wait_for(lambda: session_path(task) if session_path(task).exists() else None)
    worker = [sys.executable, "-m", task.worker_module, str(session)]
    wait_for(lambda: "to do" in site.log())
    first = site.call(CONTROLLER, ["srun", "-N1", "-n1", "--job-name=first", *worker])
    wait_for(lambda: site.blocks(task), 60)
    second = site.call(CONTROLLER, ["srun", "-N2", "-n4", "--job-name=second", *worker])
    wait_for(lambda: len(site.workers(task, state="working")) == 5, 60)
    site.cluster.scancel("--name=first", "--signal=TERM")
    first.wait(60)
    assert process.wait(120) == 0, site.log()
    assert second.wait(60) == 0
    assert_same_result(site.here(task), undisturbed)
    workers = site.workers(task)
    assert len(workers) == 5 and {w["state"] for w in workers} == {"left"}, workers
    assert sum(w["done"] for w in workers) == 120


def test_a_scheduler_in_a_job_of_its_own_starts_jobs(site, raw, undisturbed):
    # Not steps of its own job, which has one node, and no room for them.
    task = site.task(raw, num_workers=3, scheduler_host=site.cluster.address_of(3))
    process = site.start(task, inside=["srun", "-N1", "-n1", "--nodelist=n3"])
    assert process.wait(120) == 0, site.log()
    assert_same_result(site.here(task), undisturbed)


def test_nobody_sees_the_password(site, raw):
    task = site.task(raw, sleep_s=0.3)
    process = site.start(task)
    wait_for(lambda: len(site.workers(task, state="working")) == 6, 60)
    call = site.cluster.call
    shown = [call("scontrol", "show", "job", "-d"), call("squeue", "-o", "%all")]
    mark = site.environment["SLURM_CONF"]
    shown += [command_line(pid) for pid in with_variable("SLURM_CONF", mark)]
    assert process.wait(120) == 0, site.log()
    shown.append(site.log())
    shown += [path.read_text() for path in site.folder.rglob("*.json")]
    shown += [path.read_text() for path in site.folder.rglob("*.log")]
    text = "\n".join(shown)
    assert "sum" in text and "em_blocks.workers" in text
    assert PASSWORD not in text and quote_plus(PASSWORD) not in text


def test_workers_that_cannot_reach_the_scheduler_end_the_run_with_one_message(site, raw):
    # An address of the submit host, in a network that the nodes have no way to.
    address = "10.78.0.1"
    subprocess.run(
        site.cluster.inside(CONTROLLER, [required("ip"), "addr", "add", f"{address}/32", "dev", "lo"]),
        check=True,
    )
    task = site.task(raw, scheduler_host=address)
    assert site.start(task).wait(120) == 1, site.log()
    assert "cannot be reached from n" in site.reason(task)
    assert "'scheduler_host'" in site.reason(task)


@pytest.mark.parametrize("array", [False, True])
def test_a_wrong_partition_ends_the_run_with_the_words_of_slurm(site, raw, array):
    task = site.task(raw, cluster={"partition": "gpu", "array": array})
    assert site.start(task).wait(60) == 1
    said = site.log() if array else site.reason(task)  # sbatch is asked once, srun again and again
    assert "invalid partition" in said.lower()
