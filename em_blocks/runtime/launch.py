"""How worker processes are started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from em_blocks.db.connect import expand_uri
from em_blocks.errors import ConfigError
from em_blocks.tasks.base import BlockwiseTask

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def worker_environment(num_workers: int, slot: int = 0) -> dict[str, str]:
    """Environment of the worker in `slot`: its share of the cores, and one GPU if there are any."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = _module_path()
    threads = max(1, len(os.sched_getaffinity(0)) // num_workers)
    environment.update({name: str(threads) for name in THREAD_VARIABLES})
    # The threads of a worker pass large arrays on; with an arena for each thread, glibc keeps
    # much of what they free (measured: 678 MB instead of 484 MB).
    environment.setdefault("MALLOC_ARENA_MAX", "1")
    if gpus := visible_gpus():
        environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return environment


CLUSTER_COMMANDS = {
    # Both block until the worker ends, as daisy needs; a worker that only was submitted would
    # count as one that came and went.
    "slurm": ["srun", "--nodes=1", "--ntasks=1"],
    "lsf": ["bsub", "-K"],
}


def worker_launcher(task: BlockwiseTask, job_path: Path) -> Callable[..., None]:
    """A daisy worker function that becomes one worker process, here or on a cluster node."""
    command = [sys.executable, "-m", task.worker_module, str(job_path)]
    n = task.num_workers
    if task.launcher == "local":
        environments = [worker_environment(n, slot) for slot in range(n)]
    else:
        # Cores and GPUs are the cluster's to give.
        environments = [dict(os.environ, PYTHONPATH=_module_path())] * n
        command = [*CLUSTER_COMMANDS[task.launcher], *task.launcher_options, *command]

    def start(*, context) -> None:
        environment = dict(environments[int(context["worker_id"]) % n])
        environment["DAISY_CONTEXT"] = context.to_env()
        # Becomes the worker instead of waiting for it: one process less per slot.
        os.execvpe(command[0], command, environment)

    return start


def check_launcher(task: BlockwiseTask) -> None:
    """Raise `ConfigError` if a cluster's nodes could not reach database or scheduler."""
    if task.launcher == "local":
        return
    command = CLUSTER_COMMANDS[task.launcher][0]
    if shutil.which(command) is None:
        raise ConfigError(
            f"The launcher {task.launcher!r} starts workers by {command!r}, which is not on PATH here. "
            'Run this command on a submit host of the cluster, or use the launcher "local".'
        )
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


def _module_path() -> str:
    """Workers find the same modules as this process: tasks may be the user's own."""
    return os.pathsep.join(path for path in sys.path if path)


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
