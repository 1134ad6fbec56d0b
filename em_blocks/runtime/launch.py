"""How worker processes are started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def local_launcher(job_path: Path, worker_module: str, num_workers: int) -> Callable[..., None]:
    """A daisy worker function that runs one worker process on this machine.

    Every slot gets its share of the cores, and one GPU where there are GPUs.
    """
    threads = str(max(1, len(os.sched_getaffinity(0)) // num_workers))
    gpus = visible_gpus()
    # Workers find the same modules as this process: tasks may be the user's own.
    modules = os.pathsep.join(path for path in sys.path if path)

    def start(*, context) -> None:
        environment = dict(os.environ, DAISY_CONTEXT=context.to_env(), PYTHONPATH=modules)
        for name in THREAD_VARIABLES:
            environment[name] = threads
        if gpus:
            slot = int(context["worker_id"]) % num_workers
            environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
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
