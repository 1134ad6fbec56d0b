"""What a run will cost, before it starts."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from em_blocks.db.connect import connect, database_home, database_uri
from em_blocks.db.runs import DONE, QUARANTINED, RunStore
from em_blocks.db.server import mongod_binary
from em_blocks.errors import DatabaseError
from em_blocks.runtime.launchers.environment import visible_gpus, worker_environment
from em_blocks.runtime.planning.better_block import amplification, better_block
from em_blocks.runtime.planning.figures import MEASURED, UNCOMPRESSED, Plan, StepPlan, Totals
from em_blocks.runtime.planning.forecast import StepCost, StepWork, block_sizes, wall_seconds
from em_blocks.runtime.planning.small_copy import is_volume
from em_blocks.runtime.planning.trial import Trial, try_blocks
from em_blocks.runtime.runs.preflight import Checked, check_steps
from em_blocks.tasks.base import BlockwiseTask, RunConfig
from em_blocks.volumes import Volume


@dataclass(frozen=True)
class _StepState:
    """A step as the checks and the database know it; arrays are bool (z, y, x) over its blocks."""

    task: BlockwiseTask
    checked: Checked
    done: np.ndarray
    quarantined: np.ndarray
    todo: np.ndarray
    note: str | None

    def work(self, cost: StepCost) -> StepWork:
        return StepWork(self.checked.grid, self.todo, cost)


@dataclass(frozen=True)
class _Measured:
    """What the probe found out; nothing if there was none."""

    trial: Trial = field(default_factory=lambda: Trial({}, {}))
    values: dict[str, dict] = field(default_factory=dict)  # by run, as `measure` returns them
    fixed_s: float = 0.0
    has_mongod: bool = True


def plan(config: RunConfig, *, probe: bool, only: str | None = None) -> Plan:
    """Check a config and estimate its run; write nothing that lasts.

    Parameters
    ----------
    probe : bool
        Do a few blocks of every step in a scratch folder, to measure time, memory and bytes.
    only : str, optional
        Name of the run of the only step that is planned.

    Raises
    ------
    EmBlocksError
        If the run could not start, or a block of the probe fails.
    """
    tasks = config.steps()
    start = time.monotonic()
    checked = check_steps(tasks)
    check_s = time.monotonic() - start
    measured = _Measured()
    with tempfile.TemporaryDirectory(prefix="em_blocks_plan_") as folder:
        with _database(tasks, Path(folder), probe) as uri:
            steps = [_step(uri, *pair, only) for pair in zip(tasks, checked, strict=True)]
            if probe:
                measured = _measure(config, steps, uri, Path(folder), check_s)
    works = {
        step.task.run: step.work(measured.trial.costs[step.task.run])
        for step in steps if step.task.run in measured.trial.costs and step.todo.any()
    }
    plans = [_step_plan(step, measured, probe) for step in steps if only in (None, step.task.run)]
    return Plan(
        run=config.run, launcher=config.launcher, num_workers=config.num_workers,
        cpus_per_worker=_cpus(config), gpus=_gpus(config), probed=probe, steps=plans,
        total=_totals(config, steps, plans, measured, works if probe else None),
        better_block=better_block(
            config, tasks, works, probed=probe, begun=any(step.done.any() for step in steps)
        ),
        notes=list(_notes(config, measured)) if probe else [],
    )


# -- what there is to do --------------------------------------------------------------------


@contextmanager
def _database(tasks: Sequence[BlockwiseTask], folder: Path, probe: bool) -> Iterator[str]:
    """Yield the URI of the run's database; of one in `folder` if there is none but a probe reads it."""
    first = tasks[0]
    if first.db_host is not None or database_home(first.home).exists():
        with database_uri(first.db_host, first.home) as uri:
            yield uri
    elif probe and any(task.uses_rows for task in tasks):
        with database_uri(None, folder / "rows") as uri:
            yield uri
    else:
        yield ""


def _step(uri: str, task: BlockwiseTask, checked: Checked, only: str | None) -> _StepState:
    """Return a step with the states of its blocks, if there is a database."""
    (done, quarantined), note = np.zeros((2, *checked.grid.shape), bool), None
    if uri:
        with connect(uri) as client:
            store = RunStore(client, task.db_name, task.run)
            run = store.load()
            if run is not None and run["fingerprint"] == checked.fingerprint:
                done, quarantined = (store.mask(checked.grid.shape, s) for s in (DONE, QUARANTINED))
            elif run is not None:
                note = (
                    f"{task.run} exists with other settings, so the command would be refused; planned "
                    "as if nothing were done (--overwrite)"
                )
    todo = ~(checked.masked | done | quarantined) & (only in (None, task.run))
    return _StepState(task, checked, done, quarantined, todo, note)


def _together(steps: Sequence[_StepState]) -> bool:
    """Tell whether one scheduler does all steps, block by block: as `run_all` decides."""
    return len({(s.checked.grid.frame, s.checked.grid.volume_shape) for s in steps}) == 1


def _measure(
    config: RunConfig, steps: Sequence[_StepState], uri: str, folder: Path, check_s: float
) -> _Measured:
    """Try blocks, and a run without any."""
    start = time.monotonic()
    values = {step.task.run: step.task.measure() for step in steps}
    measure_s = time.monotonic() - start
    (folder / "trial").mkdir()
    todo = {step.task.run: step.todo for step in steps}
    trial = try_blocks(config, todo, uri=uri, folder=folder / "trial")
    left = sum(step.todo.any() for step in steps)
    starts = min(1, left) if _together(steps) else left
    # A pipeline checks all steps before it starts, and each again when its turn comes.
    checks = 2 if len(steps) > 1 else 1
    fixed_s = _command_s(steps[0].task) + checks * check_s + measure_s + starts * trial.start_s
    database_s = _database_s(config, folder / "database")
    return _Measured(trial, values, fixed_s + (database_s or 0.0), database_s is not None)


def _command_s(task: BlockwiseTask) -> float:
    """Measure the imports of a command before it looks at its config."""
    modules = ("em_blocks.cli.main", "em_blocks.runtime.planning.plan",
               "em_blocks.runtime.scheduler.run", type(task).__module__)
    start = time.monotonic()
    code = f"import {', '.join(modules)}"
    subprocess.run([sys.executable, "-c", code], env=worker_environment(1), check=True)
    return time.monotonic() - start


def _database_s(config: RunConfig, folder: Path) -> float | None:
    """Measure start and end of a private mongod, if the run has one; None if there is no mongod."""
    if config.db_host is not None:
        return 0.0
    try:
        mongod_binary()
    except DatabaseError:
        return None
    start = time.monotonic()
    with database_uri(None, folder):
        pass
    return time.monotonic() - start


# -- figures --------------------------------------------------------------------------------


def _step_plan(step: _StepState, measured: _Measured, probed: bool) -> StepPlan:
    task, masked, grid = step.task, step.checked.masked, step.checked.grid
    values = measured.values.get(task.run, {})
    cost = measured.trial.costs.get(task.run)
    times: dict[str, float] = {}
    if cost is not None:
        largest = int(block_sizes(grid).max())
        times = {
            "seconds_per_block": cost.seconds(largest), "worker_start_s": cost.start_s,
            "memory_mb": cost.peak_mb(largest),
            "wall_s": wall_seconds([step.work(cost)], task.num_workers),
        }
    elif probed and not step.todo.any():
        times = {"wall_s": 0.0}
    return StepPlan(
        run=task.run, task=task.kind, grid=grid.shape, block_shape=grid.block_shape,
        blocks=grid.n_blocks, masked=int(masked.sum()), done=int((step.done & ~masked).sum()),
        quarantined=int((step.quarantined & ~(step.done | masked)).sum()), left=int(step.todo.sum()),
        read_amplification=amplification(task), **_moved(step, cost), **times,
        note=step.note or measured.trial.unknown.get(task.run) or _said(task, values),
        ways=_ways(values),
    )


def _said(task: BlockwiseTask, values: dict) -> str | None:
    return task.said(values) if values else None


def _moved(step: _StepState, cost: StepCost | None) -> dict[str, float | str | None]:
    """Return bytes in and out of the blocks to do, and what is meant by them."""
    voxels = step.checked.n_voxels(step.todo)
    raw = _bytes_per_voxel(step.task)
    moved = {
        "bytes_in": None if raw is None and voxels else voxels * amplification(step.task) * (raw or 0.0),
        "bytes_in_are": UNCOMPRESSED,
        "bytes_out": sum(s.nbytes(voxels) / s.compression for s in step.task.output_specs()),
        "bytes_out_are": UNCOMPRESSED,
    }
    for name in ("bytes_in", "bytes_out") if cost is not None else ():
        if (per_voxel := getattr(cost, name)) is not None:
            moved |= {name: voxels * per_voxel, f"{name}_are": MEASURED}
    return moved


def _bytes_per_voxel(task: BlockwiseTask) -> float | None:
    """Return the bytes of the volumes that a task reads, per voxel of its grid; None if none exists."""
    size = math.prod(task.grid().frame.voxel_size)
    sources = (source for name, source in task.sources().items() if name != "mask")
    volumes = [Volume.open(source) for source in sources if is_volume(source)]
    found = [
        v.dtype.itemsize * (v.channels or 1) * size / math.prod(v.frame.voxel_size) for v in volumes
    ]
    return sum(found) if found else None


def _ways(measured: dict) -> list[dict]:
    """Return the ways of a prediction that were timed, fastest first."""
    timings = measured.get("timings", [])
    return [
        timing | {"chosen": all(measured[name] == timing[name] for name in timing if name in measured)}
        for timing in sorted(timings, key=lambda timing: -timing["voxels_per_s"])
    ]


def _totals(
    config: RunConfig, steps: Sequence[_StepState], plans: Sequence[StepPlan], measured: _Measured,
    works: dict[str, StepWork] | None,
) -> Totals:
    """Sum up the steps; without times if `works` is None."""
    into = [plan.bytes_in for plan in plans if plan.left]
    total = Totals(
        *(sum(getattr(plan, name) for plan in plans) for name in ("blocks", "masked", "done", "left")),
        bytes_in=None if None in into else sum(into), bytes_out=sum(plan.bytes_out for plan in plans),
    )
    if works is None:
        return total
    groups = [list(works.values())] if _together(steps) else [[work] for work in works.values()]
    known = measured.fixed_s + sum(wall_seconds(group, config.num_workers) for group in groups)
    times = {"fixed_s": measured.fixed_s, "known_wall_s": known}
    if not measured.trial.unknown:
        hours, gpus = known / 3600, _gpus(config)
        times |= {"wall_s": known, "core_hours": hours * _cores(config)}
        times |= {"gpu_hours": hours * gpus} if gpus else {}
    memory = max((plan.memory_mb for plan in plans if plan.memory_mb), default=None)
    return replace(total, memory_mb=memory, **times)


def _notes(config: RunConfig, measured: _Measured) -> Iterator[str]:
    if not config.workers_here:
        yield (
            f"measured by one process on this machine; how long {config.launcher} lets workers wait for "
            "their nodes, and how fast these are, is not included"
        )
    elif not measured.has_mongod:
        yield "start and end of the database are not included: there is no mongod to try them"


# -- machines -------------------------------------------------------------------------------


def _cpus(config: RunConfig) -> int:
    """Return the cores of one worker."""
    if config.workers_here:
        return max(1, len(os.sched_getaffinity(0)) // config.num_workers)
    return config.cluster.cpus or 1


def _cores(config: RunConfig) -> int:
    """Return the cores of all workers; on this machine no more than it has."""
    cores = config.num_workers * _cpus(config)
    return min(cores, len(os.sched_getaffinity(0))) if config.workers_here else cores


def _gpus(config: RunConfig) -> int:
    """Return the GPUs of all workers."""
    if config.workers_here:
        return min(config.num_workers, len(visible_gpus()))
    asked = re.search(r"gpu(?::[A-Za-z]\w*)?(?::(\d+))?", " ".join(
        [config.cluster.gres or "", *config.launcher_options]
    ))
    return config.num_workers * int(asked[1] or 1) if asked else 0
