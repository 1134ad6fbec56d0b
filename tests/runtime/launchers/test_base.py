"""How workers are started; the cluster's commands are recording stand-ins here."""

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from blockwise import add_one, make_raw, run, store_of
from em_blocks.db.server import embedded_server
from em_blocks.errors import ConfigError
from em_blocks.runtime.launchers import base, environment
from em_blocks.runtime.launchers.base import check_launcher, launcher_class
from em_blocks.runtime.launchers.environment import worker_command, worker_variables
from em_blocks.runtime.launchers.job_script import hand_script, job_script
from em_blocks.runtime.launchers.lsf import LsfLauncher, lsf_options
from em_blocks.runtime.launchers.slurm import SlurmLauncher
from em_blocks.runtime.launchers.slurm_array import SlurmArrayLauncher
from em_blocks.runtime.launchers.slurm_jobs import slurm_options
from em_blocks.runtime.protocol.job import Session

RECORDER = """#!/bin/sh
echo "$(basename "$0") $*" >> {log}
while [ "$1" != "{python}" ]; do shift; done
exec "$@"
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Commands of Slurm and LSF that record their calls; srun and bsub run the worker right here."""
    folder, log = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    for name in ("srun", "sbatch", "squeue", "scancel", "bsub", "bkill"):
        path = folder / name
        path.write_text(RECORDER.format(log=log, python=sys.executable))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return log


@pytest.mark.parametrize(
    ("launcher", "begin", "asked"),
    [
        ("slurm", "srun --job-name=sum.", "--nodes=1 --ntasks=1 --partition=em --mem=2560M --qos=low"),
        ("lsf", "bsub -K -J sum.", "-q em -M 2560MB --qos=low"),
    ],
)
def test_a_cluster_launcher_starts_workers_by_a_command_that_waits(
    cluster, tmp_path, launcher, begin, asked, monkeypatch
):
    # One machine plays submit host and nodes, so its own address stands for the cluster's.
    monkeypatch.setattr(base, "_is_loopback", lambda host: False)
    with embedded_server(tmp_path / "db") as uri:
        task = add_one(make_raw(tmp_path), tmp_path / "a", launcher=launcher, db_host=uri,
                       cluster={"partition": "em", "memory_gb": 2.5},
                       launcher_options=["--qos=low"], num_workers=2)
        assert run(task).ok
        with store_of(task) as store:
            slots = {worker["slot"] for worker in store.workers.find({"run": "sum"})}
    starts = [c for c in cluster.read_text().splitlines() if c.startswith(begin)]
    assert len(starts) >= 2 and all(asked in call for call in starts)
    # A job bears the name of its slot, by which it can be ended.
    assert slots <= {call.split(begin)[1].split()[0].split(".", 1)[1] for call in starts}
    text = cluster.read_text()
    assert "mongodb" not in text and uri not in text  # addresses travel in files


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
    monkeypatch.setattr(environment, "visible_gpus", lambda: ["3", "5"])
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda pid: set(range(12)))
    environments = [environment.worker_environment(4, slot) for slot in range(4)]
    assert [e["OMP_NUM_THREADS"] for e in environments] == ["3"] * 4
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments] == ["3", "5", "3", "5"]


def test_chosen_gpus_are_respected(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,7")
    assert environment.visible_gpus() == ["2", "7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert environment.visible_gpus() == []


def test_what_slurm_says_of_the_job_of_the_scheduler_is_not_for_its_workers(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_JOB_END_TIME", "SBATCH_PARTITION", "SRUN_DEBUG"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    variables = environment.cluster_environment(3)
    assert {n for n in variables if n.startswith(("SLURM", "SBATCH", "SRUN"))} == {"SLURM_CONF"}
    assert variables["OMP_NUM_THREADS"] == "3"


@pytest.fixture
def task(tmp_path):
    raw = make_raw(tmp_path)

    def make(**options):
        return add_one(raw, tmp_path / "a", num_workers=3, **options)

    return make


def test_the_session_of_a_run_is_private_and_does_not_outlive_it(task, monkeypatch):
    task, modes = task(), []
    save = Session.save

    def recording(self, path):
        save(self, path)
        modes.append((path.name, stat.S_IMODE(path.stat().st_mode)))

    monkeypatch.setattr(Session, "save", recording)
    assert run(task).ok
    assert modes == [("sum.json", 0o600)] and not list((task.home / "sessions").iterdir())
    with store_of(task) as store:
        assert "db_host" not in store.load()["config"]


# -- containers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runtime", "begin"),
    [
        ("apptainer", "apptainer exec --bind={home}:{home} --nv image "),
        ("singularity", "singularity exec --bind={home}:{home} --nv image "),
        ("docker", "docker run --rm --network=host --volume={home}:{home} --user="),
    ],
)
def test_a_worker_in_a_container_sees_the_run_folder_and_uses_the_python_in_there(
    task, runtime, begin
):
    task = task(container={"runtime": runtime, "image": "image", "options": ["--nv"]})
    command = shlex.join(worker_command(task, task.home / "session.json"))
    assert command.startswith(begin.format(home=task.home))
    worker = f"image python3 -m em_blocks.workers.block_worker {task.home}/session.json"
    assert command.endswith(f"--nv {worker}")
    if runtime == "docker":  # it passes on nothing by itself
        assert "--env=EM_BLOCKS_SLOT" in command and f"--user={os.getuid()}:" in command


def test_without_a_container_a_worker_uses_the_python_of_the_scheduler(task):
    task = task()
    assert worker_command(task, Path("s.json")) == [
        sys.executable, "-m", "em_blocks.workers.block_worker", "s.json"
    ]


def test_a_container_that_cannot_be_started_here_is_named(task, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    container = {"runtime": "apptainer", "image": "em.sif"}
    with pytest.raises(ConfigError, match="'apptainer', which is not on PATH here"):
        check_launcher(task(container=container))
    check_launcher(task(container=container, launcher="external"))  # it may be on the nodes


# -- what is asked of the cluster ------------------------------------------------------------------

CLUSTER = {"partition": "em", "account": "lab", "gres": "gpu:1", "memory_gb": 1.5, "cpus": 4,
           "walltime_min": 90}


def test_every_key_of_the_cluster_reaches_slurm_and_lsf(task):
    task = task(cluster=CLUSTER, launcher_options=["-x"])
    assert shlex.join(slurm_options(task)) == (
        "--nodes=1 --ntasks=1 --partition=em --account=lab --gres=gpu:1 --mem=1536M "
        "--cpus-per-task=4 --time=90 -x"
    )
    assert shlex.join(lsf_options(task)) == "-q em -P lab -gpu gpu:1 -M 1536MB -n 4 -W 90 -x"


def test_what_is_not_configured_is_left_to_the_site(task):
    assert slurm_options(task()) == ["--nodes=1", "--ntasks=1"]
    assert lsf_options(task()) == []


@pytest.mark.parametrize("missing", ["srun", "sbatch", "squeue", "scancel"])
def test_a_command_of_the_cluster_that_is_missing_is_named(task, cluster, missing, monkeypatch):
    (cluster.parent / "bin" / missing).unlink()
    monkeypatch.setenv("PATH", str(cluster.parent / "bin"))
    with pytest.raises(ConfigError, match=f"'{missing}', which is not on PATH"):
        check_launcher(task(launcher="slurm", db_host="mongo.lab", scheduler_host="10.0.0.1"))


def test_arrays_of_workers_are_for_slurm(task, cluster):
    with pytest.raises(ConfigError, match="is for Slurm"):
        check_launcher(task(launcher="lsf", cluster={"array": True}))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_a_scheduler_never_listens_on_every_interface(task, host):
    with pytest.raises(ConfigError, match="listen on every interface"):
        check_launcher(task(scheduler_host=host))


# -- job scripts -------------------------------------------------------------------------------


def directives(script, mark):
    lines = [line.removeprefix(mark) for line in script.splitlines() if line.startswith(mark)]
    return [word for line in lines for word in shlex.split(line)]


def script_of(kind, task, command):
    return job_script(task, command, kind.directives(task, Path("/logs"), 3, "sum"))


@pytest.mark.parametrize("kind", [SlurmLauncher, SlurmArrayLauncher])
def test_a_script_for_slurm_is_an_array_of_workers(task, kind):
    task = task(cluster=CLUSTER, launcher_options=["--exclusive", "--constraint", "a100 & nvme"])
    script = script_of(kind, task, ["em worker", "x"])
    assert directives(script, "#SBATCH ") == [
        *slurm_options(task), "--job-name=sum", "--array=1-3", "--no-requeue",
        "--output=/logs/worker-%A_%a.log", "--open-mode=append",
    ]
    assert "#SBATCH --exclusive\n#SBATCH --constraint 'a100 & nvme'\n" in script
    assert script.startswith("#!/bin/bash\n") and script.endswith("exec 'em worker' x\n")
    assert "export OMP_NUM_THREADS=4\n" in script


def test_a_script_for_lsf_is_an_array_of_workers(task):
    task = task(cluster=CLUSTER, launcher_options=["-x", "-R", "span[hosts=1]"])
    script = script_of(LsfLauncher, task, ["worker"])
    assert directives(script, "#BSUB ") == [
        *lsf_options(task), "-J", "sum[1-3]", "-o", "/logs/worker-%J_%I.log",
    ]
    assert "#BSUB -x\n#BSUB -R 'span[hosts=1]'\n" in script


@pytest.mark.parametrize(("array", "kind"), [(False, SlurmLauncher), (True, SlurmArrayLauncher)])
def test_a_config_chooses_between_single_jobs_and_arrays(task, array, kind):
    assert launcher_class(task(launcher="slurm", cluster={"array": array})) is kind


def test_a_launcher_that_nobody_registers_is_refused_with_those_there_are(task):
    with pytest.raises(ConfigError, match="input should be 'local', 'slurm', 'lsf' or 'external'"):
        task(launcher="slum")


@pytest.mark.parametrize(
    ("launcher", "here"), [("local", True), ("slurm", False), ("lsf", False), ("external", False)]
)
def test_a_task_says_whether_its_workers_run_on_this_machine(task, launcher, here):
    assert task(launcher=launcher).workers_here is here


@pytest.mark.parametrize("launcher", ["slurm", "lsf", "local"])
def test_a_script_to_submit_by_hand_runs_and_holds_no_secret(task, launcher, tmp_path, monkeypatch):
    monkeypatch.setenv("MONGO_PASSWORD", "hunter2")
    uri = "mongodb://em:${MONGO_PASSWORD}@mongo.lab/?authSource=admin"
    task = task(launcher=launcher, db_host=uri)
    overrides = (f"db_host={uri}", "sleep_s=0.5")
    script = hand_script("predict", task, Path("config.json"), overrides)
    assert "hunter2" not in script and "mongo" not in script.lower()
    assert "join" in script and "--set sleep_s=0.5" in script and str(Path.cwd()) in script
    assert "em-blocks predict config.json" in script and "launcher=external" in script
    (tmp_path / "job.sh").write_text(script)
    subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=True)  # its syntax


def test_workers_find_modules_of_a_relative_folder(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/found_by_workers.py").write_text("FOUND = 7")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("mine")
    code = "import found_by_workers; print(found_by_workers.FOUND)"
    variables = worker_variables(1)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, cwd="/", capture_output=True,
        text=True, check=True,
    )
    assert done.stdout == "7\n"


def test_variables_of_a_job_script_hold_only_what_workers_need(monkeypatch):
    monkeypatch.setenv("MONGO_PASSWORD", "hunter2")
    assert set(worker_variables(2)) == {
        "PYTHONPATH", "MALLOC_ARENA_MAX", *environment.THREAD_VARIABLES
    }
