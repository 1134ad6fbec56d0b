"""Workers on a real Slurm that are cancelled, orphaned, cut off, frozen."""

import os
import signal
import sys

import pytest

from blockwise import assert_same_result, wait_for
from cluster.processes import command_line
from cluster.slots import CONTROLLER
from em_blocks.runtime.protocol.job import session_path

pytestmark = pytest.mark.slurm


def started(site, raw, **options):
    """A run on all nodes from when every worker has done a block: the task and its command."""
    task = site.task(raw, **options)
    process = site.start(task)
    wait_for(lambda: len({b["worker"] for b in site.blocks(task)}) == task.num_workers, 90)
    return task, process


def test_cancelled_jobs_and_a_stopped_node_change_nothing(site, raw, undisturbed):
    task, process = started(site, raw, sleep_s=2.0)
    assert sorted(w["host"] for w in site.workers(task)) == ["n1", "n1", "n2", "n2", "n3", "n3"]
    for job in site.cluster.squeue()[:2]:
        site.cluster.scancel(job.id)
    site.cluster.stop_node(2)
    assert process.wait(200) == 0, site.log()
    assert_same_result(site.here(task), undisturbed)
    # Slurm took half a minute to see that the node was gone; its orphans worked on until then.
    assert site.workers(task, host="n2")
    for worker in site.workers(task, host="n2"):
        assert worker["state"] in ("lost", "revoked"), worker
        assert not [b for b in site.blocks(task) if b["worker"] == worker["worker"]
                    and b["finished"] > worker["left"]]


def test_a_run_does_not_wait_for_a_host_that_is_cut_off(site, raw, undisturbed):
    task, process = started(site, raw, sleep_s=1.0, worker_timeout_s=4)
    site.cluster.cut(2)
    wait_for(lambda: len(site.workers(task, state="lost")) == 2)
    # Their places go to other hosts, though Slurm would still choose the one that is cut off.
    wait_for(lambda: "n2" in site.cluster.call("squeue", "-h", "-o", "%x").split())
    assert process.wait(120) == 0, site.log()
    assert_same_result(site.here(task), undisturbed)
    assert {w["host"] for w in site.workers(task, state="lost")} == {"n2"}
    site.cluster.heal(2)
    wait_for(lambda: not site.cluster.squeue(), 60)
    assert_same_result(site.here(task), undisturbed)


def test_the_commit_of_a_worker_that_was_given_up_is_refused(site, raw, undisturbed):
    # A frozen worker's host still answers: it is its block that takes too long. Nobody may end it here,
    # so it is not the scheduler that starts the workers.
    task = site.task(raw, launcher="external", block_timeout_s=5, sleep_s=0.2,
                     faults={"0/0/3": "wait_written_once"})
    process = site.start(task)
    wait_for(session_path(task).exists)
    site.call(CONTROLLER, ["srun", "-N3", "-n3", "--kill-on-bad-exit=0", sys.executable, "-m",
                           task.worker_module, str(session_path(task))])
    (frozen,) = wait_for(lambda: site.workers(task, blocks="0/0/3"), 60)
    wait_for((task.home / "fault-0-0-3").exists)
    os.kill(frozen["pid"], signal.SIGSTOP)
    (done,) = wait_for(lambda: [b for b in site.blocks(task) if b["_id"] == "sum/0/0/3"], 60)
    assert done["worker"] != frozen["worker"]
    (task.home / "go").touch()
    os.kill(frozen["pid"], signal.SIGCONT)
    assert process.wait(120) == 0, site.log()
    assert_same_result(site.here(task), undisturbed)
    assert done in site.blocks(task)
    assert [w["state"] for w in site.workers(task, worker=frozen["worker"])] == ["revoked"]
    wait_for(lambda: not command_line(frozen["pid"]))


def test_a_node_that_crashes_takes_nothing_along(site, raw, undisturbed):
    task, process = started(site, raw, sleep_s=1.0)
    site.cluster.kill_node(3)
    wait_for(lambda: len(site.workers(task, host="n3", state="lost")) == 2)
    site.cluster.start_node(3)  # so soon that Slurm has not noticed
    assert process.wait(120) == 0, site.log()
    assert_same_result(site.here(task), undisturbed)


def test_a_run_goes_on_when_all_its_jobs_were_cancelled(site, raw, undisturbed):
    task, process = started(site, raw, sleep_s=0.5)
    site.cluster.scancel("--user=root")
    assert process.wait(120) == 0, site.log()
    assert_same_result(site.here(task), undisturbed)
    assert len(site.workers(task)) == 12


def test_workers_work_on_while_slurm_does_not_answer(site, raw, undisturbed):
    task, process = started(site, raw, num_workers=3, sleep_s=0.7, cluster={"array": True})
    before = site.workers(task)
    site.cluster.stop_controller()
    wait_for(lambda: len(site.blocks(task)) > 80, 60)  # the queue was asked several times
    site.cluster.start_controller()
    assert process.wait(120) == 0, site.log()
    assert_same_result(site.here(task), undisturbed)
    assert {w["worker"] for w in site.workers(task)} == {w["worker"] for w in before}


def test_a_worker_of_another_machine_is_lost_without_a_word_to_slurm(site, raw, undisturbed):
    # Slurm starts nothing that is to avoid a node which it does not know.
    task, process = started(site, raw, num_workers=3, sleep_s=1.0)
    guest = site.call(
        CONTROLLER, [sys.executable, "-m", task.worker_module, str(session_path(task))]
    )
    wait_for(lambda: len(site.workers(task, state="working")) == 4)
    guest.kill()
    wait_for(lambda: site.workers(task, state="lost"))
    site.cluster.scancel("--user=root")
    wait_for(lambda: len(site.workers(task)) == 7, 60)  # three others came
    assert process.wait(120) == 0, site.log()
    assert_same_result(site.here(task), undisturbed)
