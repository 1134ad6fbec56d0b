"""Commands and environments of worker processes, here and on clusters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from em_blocks.db.connect import expand_uri
from em_blocks.errors import ConfigError
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.cluster import Container

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

TAIL = 20_000

CLUSTER_COMMANDS = {
    # All of these block until the worker ends, or are asked what became of it.
    "slurm": ("srun", "sbatch", "squeue", "scancel"),
    "lsf": ("bsub", "bkill"),
}


def worker_environment(num_workers: int, slot: int = 0) -> dict[str, str]:
    """Environment of the worker in `slot`: its share of the cores, and one GPU if there are any."""
    cpus = max(1, len(os.sched_getaffinity(0)) // num_workers)
    environment = {**os.environ, **worker_variables(cpus)}
    if gpus := visible_gpus():
        environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return environment


def cluster_environment(cpus: int | None) -> dict[str, str]:
    """Environment of a worker whose cores and GPUs the cluster gives.

    Without what Slurm says of the scheduler's own job, if it is in one: srun would start the workers
    inside of that.
    """
    own = {
        name: value for name, value in os.environ.items()
        if name == "SLURM_CONF" or not name.startswith(("SLURM", "SBATCH_", "SRUN_"))
    }
    return own | worker_variables(cpus)


def worker_variables(cpus: int | None) -> dict[str, str]:
    """What a worker needs in its environment. None of it is secret: job scripts show it."""
    variables = {
        # Workers find the same modules as this process: tasks may be the user's own.
        "PYTHONPATH": os.pathsep.join(_own_paths()),
        # The threads of a worker pass large arrays on; with an arena for each thread, glibc keeps
        # much of what they free (measured: 678 MB instead of 484 MB).
        "MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "1"),
    }
    return variables | (dict.fromkeys(THREAD_VARIABLES, str(cpus)) if cpus else {})


def _own_paths() -> list[str]:
    """Folders of modules beside those of Python and its packages, which every worker has."""
    prefixes = (sys.prefix, sys.base_prefix)
    return [p for p in sys.path if os.path.isabs(p) and not p.startswith(prefixes)]


def worker_command(task: BlockwiseTask, session: Path) -> list[str]:
    """The command of one worker, in its container if it has one."""
    python = sys.executable if task.container is None else "python3"
    return contained(task.container, [python, "-m", task.worker_module, str(session)], task.home)


def contained(container: Container | None, command: list[str], home: Path) -> list[str]:
    """`command` in a container that sees the run folder `home`."""
    if container is None:
        return command
    if container.runtime == "docker":
        prefix = ["docker", "run", "--rm", "--network=host", f"--volume={home}:{home}",
                  f"--user={os.getuid()}:{os.getgid()}", "--env=EM_BLOCKS_SLOT",
                  "--env=SLURMD_NODENAME", "--env=CUDA_VISIBLE_DEVICES"]
    else:
        prefix = [container.runtime, "exec", f"--bind={home}:{home}"]
    return [*prefix, *container.options, container.image, *command]


def slurm_options(task: BlockwiseTask) -> list[str]:
    """What a worker asks of Slurm, for srun, sbatch and job scripts."""
    cluster = task.cluster
    values = {
        "--partition": cluster.partition, "--account": cluster.account, "--gres": cluster.gres,
        "--mem": cluster.memory_gb and f"{round(cluster.memory_gb * 1024)}M",
        "--cpus-per-task": cluster.cpus, "--time": cluster.walltime_min,
    }
    given = [f"{name}={value}" for name, value in values.items() if value is not None]
    return ["--nodes=1", "--ntasks=1", *given, *task.launcher_options]


def lsf_options(task: BlockwiseTask) -> list[str]:
    """What a worker asks of LSF."""
    cluster = task.cluster
    values = {
        "-q": cluster.partition, "-P": cluster.account, "-gpu": cluster.gres,
        "-M": cluster.memory_gb and f"{round(cluster.memory_gb * 1024)}MB",
        "-n": cluster.cpus, "-W": cluster.walltime_min,
    }
    given = [str(part) for pair in values.items() if pair[1] is not None for part in pair]
    return [*given, *task.launcher_options]


def last_words(logs: Path) -> str:
    """What a worker said at last, in the log below `logs` that was written last."""
    written = sorted(logs.glob("worker-*.log"), key=lambda path: path.stat().st_mtime)
    if not written:
        return "nothing"
    lines = written[-1].read_text(errors="replace")[-TAIL:].strip().splitlines()
    # Slurm has the last word, and what it says is that the worker ended.
    own = [line for line in lines if not line.startswith(("srun:", "slurmstepd"))]
    return (own or lines or ["nothing"])[-1][:500]


def check_launcher(task: BlockwiseTask) -> None:
    """Raise `ConfigError` if workers could not be started, or not reach database or scheduler."""
    if task.scheduler_host in ("0.0.0.0", "::", ""):
        raise ConfigError(
            f"'scheduler_host' is {task.scheduler_host!r}, which would listen on every interface and is "
            "no address that a worker could connect to. Set it to one address of this machine."
        )
    if task.container is not None and shutil.which(task.container.runtime) is None:
        if task.launcher == "local":
            raise ConfigError(
                f"'container' starts workers by {task.container.runtime!r}, which is not on PATH here."
            )
    if task.launcher in CLUSTER_COMMANDS:
        _check_cluster(task)


def _check_cluster(task: BlockwiseTask) -> None:
    missing = [name for name in CLUSTER_COMMANDS[task.launcher] if shutil.which(name) is None]
    if missing:
        raise ConfigError(
            f"The launcher {task.launcher!r} starts workers by {missing[0]!r}, which is not on PATH "
            'here. Run this command on a submit host of the cluster, or use the launcher "local".'
        )
    if task.launcher == "lsf" and task.cluster.array:
        raise ConfigError("'cluster.array' is for Slurm; workers of LSF are started one by one.")
    if task.db_host is None or _is_loopback(urlsplit(expand_uri(task.db_host)).hostname):
        problem = "not set" if task.db_host is None else "an address of this machine only"
        raise ConfigError(
            f"The launcher {task.launcher!r} starts workers on other machines, which must reach the "
            f"database, but 'db_host' is {problem}. "
            "Every finished block is recorded there; set 'db_host' to a MongoDB server that the nodes "
            "can reach."
        )
    if _is_loopback(task.scheduler_host):
        raise ConfigError(
            f"The launcher {task.launcher!r} starts workers on other machines, which must reach the "
            f"scheduler, but 'scheduler_host' is {task.scheduler_host}. Set it to an address of this "
            "machine in the cluster's network."
        )


def _is_loopback(host: str | None) -> bool:
    return host is None or host == "localhost" or host.startswith("127.") or host == "::1"


def visible_gpus() -> list[str]:
    """CUDA devices that this process may use, by index or UUID."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu for gpu in chosen.split(",") if gpu]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
        capture_output=True, text=True, check=False,
    )
    return listed.stdout.split() if listed.returncode == 0 else []
