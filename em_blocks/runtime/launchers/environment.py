"""Commands and environments of worker processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.cluster import Container

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def worker_environment(num_workers: int, slot: int = 0) -> dict[str, str]:
    """Return the environment of a local worker: its share of the cores, and one GPU if there are any."""
    cpus = max(1, len(os.sched_getaffinity(0)) // num_workers)
    environment = {**os.environ, **worker_variables(cpus)}
    if gpus := visible_gpus():
        environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return environment


def cluster_environment(cpus: int | None) -> dict[str, str]:
    """Return the environment of a worker whose cores and GPUs the cluster assigns.

    Variables of the scheduler's own Slurm job, if it runs in one, are left out: srun would start the
    workers inside of that job.
    """
    own = {
        name: value for name, value in os.environ.items()
        if name == "SLURM_CONF" or not name.startswith(("SLURM", "SBATCH_", "SRUN_"))
    }
    return own | worker_variables(cpus)


def worker_variables(cpus: int | None) -> dict[str, str]:
    """Return the variables that a worker needs. None is secret: job scripts show them."""
    variables = {
        # Workers find the same modules as this process: tasks may be the user's own.
        "PYTHONPATH": os.pathsep.join(_own_paths()),
        # The threads of a worker pass large arrays on; with an arena for each thread, glibc keeps
        # much of what they free (measured: 678 MB instead of 484 MB).
        "MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "1"),
    }
    return variables | (dict.fromkeys(THREAD_VARIABLES, str(cpus)) if cpus else {})


def _own_paths() -> list[str]:
    """Folders of modules in addition to those of Python and its packages, which every worker has."""
    prefixes = (sys.prefix, sys.base_prefix)
    return [p for p in map(os.path.abspath, sys.path) if not p.startswith(prefixes)]


def worker_command(task: BlockwiseTask, session: Path) -> list[str]:
    """Return the command of one worker, in its container if it has one."""
    python = sys.executable if task.container is None else "python3"
    return contained(task.container, [python, "-m", task.worker_module, str(session)], task.home)


def contained(container: Container | None, command: list[str], home: Path) -> list[str]:
    """Return `command` in a container that sees the run folder `home`."""
    if container is None:
        return command
    if container.runtime == "docker":
        prefix = ["docker", "run", "--rm", "--network=host", f"--volume={home}:{home}",
                  f"--user={os.getuid()}:{os.getgid()}", "--env=EM_BLOCKS_SLOT",
                  "--env=SLURMD_NODENAME", "--env=CUDA_VISIBLE_DEVICES"]
    else:
        prefix = [container.runtime, "exec", f"--bind={home}:{home}"]
    return [*prefix, *container.options, container.image, *command]


def visible_gpus() -> list[str]:
    """Return the CUDA devices that this process may use, by index or UUID."""
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
