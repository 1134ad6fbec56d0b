"""How worker processes are started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def worker_environment(num_workers: int, slot: int = 0) -> dict[str, str]:
    """Environment of the worker in `slot`: its share of the cores, and one GPU if there are any."""
    environment = dict(os.environ)
    # Workers find the same modules as this process: tasks may be the user's own.
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    threads = max(1, len(os.sched_getaffinity(0)) // num_workers)
    environment.update({name: str(threads) for name in THREAD_VARIABLES})
    if gpus := visible_gpus():
        environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return environment


def local_launcher(job_path: Path, worker_module: str, num_workers: int) -> Callable[..., None]:
    """A daisy worker function that runs one worker process on this machine."""
    environments = [worker_environment(num_workers, slot) for slot in range(num_workers)]

    def start(*, context) -> None:
        environment = dict(environments[int(context["worker_id"]) % num_workers])
        environment["DAISY_CONTEXT"] = context.to_env()
        # Becomes the worker instead of waiting for it: one process less per slot.
        command = [sys.executable, "-m", worker_module, str(job_path)]
        os.execve(sys.executable, command, environment)

    return start


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
