"""What a run will cost, before it starts."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from em_blocks.db.connect import database_home, database_uri
from em_blocks.errors import ConfigError
from em_blocks.geometry import Triple
from em_blocks.runtime.job import Job
from em_blocks.runtime.launch import worker_environment
from em_blocks.runtime.preflight import check_task
from em_blocks.tasks.base import BlockwiseTask, SynapseTask


@dataclass(frozen=True)
class Plan:
    """Blocks, bytes, memory and time of a run.

    Attributes
    ----------
    blocks, masked : int
        All blocks of the grid, and those that the mask leaves out.
    read_amplification : float
        Voxels read per voxel written.
    bytes_written : float
        Of all outputs, before compression.
    seconds_per_block, memory_mb, wall_s : float or None
        Measured on up to three blocks; None without a probe.
    better_block_shape : (3,) int or None
        A block that reads less in total.
    """

    run: str
    task: str
    grid: Triple
    block_shape: Triple
    blocks: int
    masked: int
    read_amplification: float
    bytes_written: float
    seconds_per_block: float | None = None
    memory_mb: float | None = None
    wall_s: float | None = None
    better_block_shape: Triple | None = None
    better_read_amplification: float | None = None

    def text(self) -> str:
        """The plan in words."""
        lines = [
            f"run {self.run} ({self.task})",
            f"blocks              {self.blocks} (grid {self.grid}, {self.block_shape} voxels each), "
            f"{self.masked} masked, {self.blocks - self.masked} to compute at most",
            f"read amplification  {self.read_amplification:.2f} voxels read per voxel written",
            f"bytes written       {self.bytes_written / 1e9:.3g} GB before compression",
        ]
        if self.seconds_per_block is not None:
            lines += [
                f"time per block      {self.seconds_per_block:.2f} s (probe)",
                f"memory per worker   {self.memory_mb:.0f} MB (probe)",
                f"wall time           about {self.wall_s:.0f} s",
            ]
        if self.better_block_shape is not None:
            lines.append(
                f"better block_shape  {self.better_block_shape} would read "
                f"{self.better_read_amplification:.2f} voxels per voxel written"
            )
        return "\n".join(lines)


def plan(task: BlockwiseTask, *, probe: bool) -> Plan:
    """Check a task and estimate its run; writes nothing that lasts.

    Parameters
    ----------
    probe : bool
        Do up to three blocks in a scratch folder to measure time and memory.

    Raises
    ------
    EmBlocksError
        If the run could not start.
    """
    checked = check_task(task)
    n_todo = checked.grid.n_blocks - int(checked.masked.sum())
    measured = _probe(task, np.argwhere(~checked.masked)) if probe else {}
    better = better_block_shape(task)
    values = {}
    if measured:
        seconds = float(np.median([b["seconds"] for b in measured["blocks"]]))
        values = {
            "seconds_per_block": seconds,
            "memory_mb": measured["memory_mb"],
            "wall_s": measured["load_s"] + seconds * math.ceil(n_todo / task.num_workers),
        }
    return Plan(
        run=task.run, task=task.kind, grid=checked.grid.shape, block_shape=checked.grid.block_shape,
        blocks=checked.grid.n_blocks, masked=checked.grid.n_blocks - n_todo,
        read_amplification=amplification(task),
        bytes_written=sum(
            s.nbytes(math.prod(checked.grid.volume_shape)) / s.compression
            for s in task.output_specs()
        ),
        better_block_shape=better and better.block_shape,
        better_read_amplification=better and amplification(better),
        **values,
    )


def amplification(task: BlockwiseTask) -> float:
    """Voxels that a whole block reads per voxel that it writes."""
    return math.prod(task.read_shape()) / math.prod(task.grid().block_shape)


def better_block_shape(task: BlockwiseTask) -> BlockwiseTask | None:
    """The task with a block that reads at least 15 % less, if there is one.

    It is doubled along the axis that saves most while every worker still gets four blocks
    and a block's reads fit in an eighth of a worker's share of memory.
    """
    if amplification(task) == 1:
        return None  # nothing is read twice
    budget = psutil.virtual_memory().total / task.num_workers / 8
    best = task
    while True:
        candidates = [c for c in _doubled(best) if _acceptable(c, budget)]
        if not candidates:
            break
        best = min(candidates, key=amplification)
    return best if amplification(best) < 0.85 * amplification(task) else None


def _doubled(task: BlockwiseTask) -> list[BlockwiseTask]:
    shapes = (
        tuple(b * (2 if a == axis else 1) for a, b in enumerate(task.grid().block_shape))
        for axis in range(3)
    )
    return [task.model_copy(update={"block_shape": shape}) for shape in shapes]


def _acceptable(task: BlockwiseTask, budget: float) -> bool:
    channels = sum(s.channels or 1 for s in task.output_specs())
    # float32 in the worst case; several blocks are held at a time.
    needed = math.prod(task.read_shape()) * 4 * (1 + channels) * task.concurrent_blocks
    return task.grid().n_blocks >= 4 * task.num_workers and needed < budget


def run_probe(task: BlockwiseTask, keys: list[str], folder: Path) -> dict:
    """Do the blocks `keys` (``zi/yi/xi``) in a process like a worker, writing to `folder`."""
    scratch = task.relocated(folder)
    job_path = folder / "job.json"
    with _database(task, folder) as uri:
        Job.of(scratch, measured=task.measure(), uri=uri, epoch=0).save(job_path)
        done = subprocess.run(
            [sys.executable, "-m", "em_blocks.runtime.probe", str(job_path), *keys],
            env=worker_environment(task.num_workers), capture_output=True, text=True, check=False,
        )
    if done.returncode != 0:
        raise ConfigError(
            f"The probe of block {keys[0]} failed, so the run would fail as well: "
            f"{done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}"
        )
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def _database(task: BlockwiseTask, folder: Path) -> Iterator[str]:
    """URI of the database that the probe reads, in `folder` if there is none yet; "" if none is read."""
    if not isinstance(task, SynapseTask):
        yield ""
        return
    home = task.home if database_home(task.home).exists() else folder
    with database_uri(task.db_host, home) as uri:
        yield uri


def _probe(task: BlockwiseTask, todo: np.ndarray) -> dict:
    """First, middle and last block that are not masked."""
    chosen = todo[sorted({0, len(todo) // 2, len(todo) - 1})]
    with tempfile.TemporaryDirectory() as folder:
        return run_probe(task, ["/".join(map(str, index)) for index in chosen], Path(folder))


