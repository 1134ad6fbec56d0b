"""What a run will cost, before it starts."""

from __future__ import annotations

import math
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from em_blocks.db.connect import connect, database_home, database_uri
from em_blocks.db.runs import DONE, QUARANTINED, RunStore
from em_blocks.errors import ConfigError
from em_blocks.geometry import Triple
from em_blocks.runtime.launchers.environment import visible_gpus
from em_blocks.runtime.planning.better_block import BetterBlock, better_block
from em_blocks.runtime.planning.fixed_costs import FixedCosts, fixed_costs
from em_blocks.runtime.planning.forecast import StepCost, StepWork, sizes, wall_seconds
from em_blocks.runtime.planning.small_copy import volume_fields
from em_blocks.runtime.planning.trial import Trial, processes, try_blocks
from em_blocks.runtime.runs.preflight import Checked, check_steps
from em_blocks.tasks.base import BlockwiseTask, RunConfig
from em_blocks.volumes import Volume

MEASURED, UNCOMPRESSED = "compressed, measured", "before compression"


@dataclass(frozen=True)
class StepPlan:
    """One step of a job.

    Attributes
    ----------
    grid : (3,) int
        Blocks along (z, y, x), of `block_shape` voxels.
    blocks, masked, done, quarantined, left : int
        All blocks; those that the mask leaves out; those that the database knows as done, or as
        given up until `em-blocks retry`; and those that a run would do now.
    read_amplification : float
        Voxels that a whole block reads per voxel that it writes.
    bytes_in, bytes_out : float or None
        Of the blocks left. What they mean, `bytes_in_are` and `bytes_out_are` say: "compressed,
        measured" (from and to files, by the probe), or "before compression".
    seconds_per_block : float or None
        Of a whole block, while all workers work. None without a probe, as for the next three.
    worker_start_s : float or None
        More than this for the first block of each worker: opening, loading, compiling.
    memory_mb : float or None
        Peak of a worker.
    wall_s : float or None
        Of this step alone, without the start of the command.
    note : str or None
        What else there is to say, such as why there is no time.
    ways : list of dict
        Ways of passing tiles through a network that were timed, `voxels_per_s` of one worker, and
        which one is `chosen`.
    """

    run: str
    task: str
    grid: Triple
    block_shape: Triple
    blocks: int
    masked: int
    done: int
    quarantined: int
    left: int
    read_amplification: float
    bytes_in: float | None
    bytes_in_are: str
    bytes_out: float
    bytes_out_are: str
    seconds_per_block: float | None = None
    worker_start_s: float | None = None
    memory_mb: float | None = None
    wall_s: float | None = None
    note: str | None = None
    ways: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Totals:
    """All steps together.

    Attributes
    ----------
    bytes_in : float or None
        None if it is unknown for a step.
    memory_mb : float or None
        Peak of a worker, the largest of all steps.
    fixed_s : float or None
        Of `wall_s`, what does not depend on blocks: the command, the database, the workers' start.
    wall_s : float or None
        From the command to its end; None if the time of a step is not known.
    known_wall_s : float or None
        The same, without the steps that are not known.
    core_hours, gpu_hours : float or None
        Workers times their cores (GPUs) times `wall_s`; GPUs None where workers have none.
    """

    blocks: int
    masked: int
    done: int
    left: int
    bytes_in: float | None
    bytes_out: float
    memory_mb: float | None = None
    fixed_s: float | None = None
    wall_s: float | None = None
    known_wall_s: float | None = None
    core_hours: float | None = None
    gpu_hours: float | None = None


@dataclass(frozen=True)
class Plan:
    """What a job will cost; `dataclasses.asdict` of it is what ``em-blocks plan --json`` prints.

    Attributes
    ----------
    run : str
    launcher : str
    num_workers, cpus_per_worker : int
    gpus : int
        That the workers have in all.
    probed : bool
        Whether blocks were tried.
    steps : list of StepPlan
    total : Totals
    better_block : BetterBlock or None
    notes : list of str
        What the figures do not include.
    """

    run: str
    launcher: str
    num_workers: int
    cpus_per_worker: int
    gpus: int
    probed: bool
    steps: list[StepPlan]
    total: Totals
    better_block: BetterBlock | None
    notes: list[str]

    def text(self) -> str:
        """The plan as tables of text."""
        from em_blocks.runtime.planning.plan_text import plan_text

        return plan_text(self)


def plan(config: RunConfig, *, probe: bool, only: str | None = None) -> Plan:
    """Check a config and estimate its run; writes nothing that lasts.

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
    steps = config.steps()
    start = time.monotonic()
    checked = check_steps(steps)
    check_s = time.monotonic() - start
    with tempfile.TemporaryDirectory(prefix="em_blocks_plan_") as folder:
        with _database(steps, Path(folder), probe) as uri:
            states = [_state(uri, step, found) for step, found in zip(steps, checked, strict=True)]
            planning = _Planning(config, steps, checked, states, only)
            if probe:
                planning.measure(uri, Path(folder), check_s)
    return planning.plan(probe)


@dataclass(frozen=True)
class _State:
    """What the database knows of a step, bool (z, y, x) over its blocks."""

    done: np.ndarray
    quarantined: np.ndarray
    note: str | None = None


class _Planning:
    """Puts together what was found out about the steps of a job."""

    def __init__(
        self, config: RunConfig, steps: Sequence[BlockwiseTask], checked: Sequence[Checked],
        states: Sequence[_State], only: str | None,
    ):
        self.config, self.steps, self.checked, self.states = config, steps, checked, states
        self.todo = {
            step.run: ~(found.masked | state.done | state.quarantined)
            & (only is None or step.run == only)
            for step, found, state in zip(steps, checked, states, strict=True)
        }
        self.only = only
        self.trial, self.fixed, self.fixed_s = Trial({}, {}), None, 0.0
        self.measured: dict[str, dict] = {}

    @property
    def together(self) -> bool:
        """Whether one scheduler does all steps, block by block: as `run_all` decides."""
        return len({(c.grid.frame, c.grid.volume_shape) for c in self.checked}) == 1

    def measure(self, uri: str, folder: Path, check_s: float) -> None:
        """Try blocks, and a run without any."""
        start = time.monotonic()
        self.measured = {step.run: step.measure() for step in self.steps}
        measure_s = time.monotonic() - start
        (folder / "trial").mkdir()
        self.trial = try_blocks(self.config, self.todo, uri=uri, folder=folder / "trial")
        left = [step for step in self.steps if self.todo[step.run].any()]
        if self.config.workers_here and left:
            workers = processes(left[0], max(int(self.todo[s.run].sum()) for s in left))
            self.fixed = fixed_costs(
                left, together=self.together, workers=workers, folder=folder / "nothing"
            )
        # A pipeline checks all steps before it starts, and each again when its turn comes.
        checks = 2 if len(self.steps) > 1 else 1
        starts = 1 if self.together else len(left)
        fixed = self.fixed or FixedCosts(0.0, 0.0, 0.0)
        self.fixed_s = sum(fixed) + checks * check_s + measure_s + starts * self.trial.import_s

    def plan(self, probed: bool) -> Plan:
        plans = [
            self._step(step, found, state, probed)
            for step, found, state in zip(self.steps, self.checked, self.states, strict=True)
            if self.only in (None, step.run)
        ]
        cpus = _cpus(self.config)
        gpus = _gpus(self.config)
        return Plan(
            run=self.config.run, launcher=self.config.launcher, num_workers=self.config.num_workers,
            cpus_per_worker=cpus, gpus=gpus, probed=probed, steps=plans,
            total=self._total(plans, cpus, gpus, probed),
            better_block=better_block(
                self.config, self.steps, self._works(), probed=probed,
                begun=any(state.done.any() for state in self.states),
            ),
            notes=self._notes(probed),
        )

    # -- parts ------------------------------------------------------------------------------

    def _step(self, step: BlockwiseTask, checked: Checked, state: _State, probed: bool) -> StepPlan:
        todo, grid = self.todo[step.run], checked.grid
        measured = self.measured.get(step.run, {})
        cost = self.trial.costs.get(step.run)
        moved = _moved(step, checked, todo, cost)
        times = {}
        if cost is not None:
            largest = int(sizes(grid).max())
            times = {
                "seconds_per_block": cost.seconds(largest), "worker_start_s": cost.start_s,
                "memory_mb": cost.peak_mb(largest),
                "wall_s": wall_seconds([_work(step, checked, todo, cost)], step.num_workers),
            }
        elif probed and not todo.any():
            times = {"wall_s": 0.0}
        return StepPlan(
            run=step.run, task=step.kind, grid=grid.shape, block_shape=grid.block_shape,
            blocks=grid.n_blocks, masked=int(checked.masked.sum()),
            done=int((state.done & ~checked.masked).sum()),
            quarantined=int((state.quarantined & ~(state.done | checked.masked)).sum()),
            left=int(todo.sum()),
            read_amplification=amplification(step), **moved, **times,
            note=state.note or self.trial.unknown.get(step.run)
            or (step.said(measured) if measured else None),
            ways=_ways(measured),
        )

    def _works(self) -> list[StepWork]:
        return [
            _work(step, checked, self.todo[step.run], self.trial.costs[step.run])
            for step, checked in zip(self.steps, self.checked, strict=True)
            if step.run in self.trial.costs and self.todo[step.run].any()
        ]

    def _total(self, plans: Sequence[StepPlan], cpus: int, gpus: int, probed: bool) -> Totals:
        unknown = any(p.bytes_in is None for p in plans if p.left)
        counts = {
            name: sum(getattr(p, name) for p in plans) for name in ("blocks", "masked", "done", "left")
        }
        moved = {
            "bytes_in": None if unknown else sum(p.bytes_in for p in plans if p.left),
            "bytes_out": sum(p.bytes_out for p in plans),
        }
        if not probed:
            return Totals(**counts, **moved)
        works, workers = self._works(), self.config.num_workers
        busy_s = (
            wall_seconds(works, workers) if self.together
            else sum(wall_seconds([work], workers) for work in works)
        )
        known = self.fixed_s + busy_s
        wall = None if self.trial.unknown else known
        hours = wall and wall / 3600
        return Totals(
            **counts, **moved, memory_mb=max((p.memory_mb for p in plans if p.memory_mb), default=None),
            fixed_s=self.fixed_s, wall_s=wall, known_wall_s=known,
            core_hours=hours and hours * _cores(self.config, cpus),
            gpu_hours=hours * gpus if gpus and hours else None,
        )

    def _notes(self, probed: bool) -> list[str]:
        notes = []
        if probed and not self.config.workers_here:
            notes.append(
                f"measured by one process on this machine; how long {self.config.launcher} lets workers "
                "wait for their nodes, and how fast these are, is not included"
            )
        elif probed and self.fixed is None and any(t.any() for t in self.todo.values()):
            notes.append("start and end of the run are not included: there is no mongod to try them")
        return notes


def _work(
    step: BlockwiseTask, checked: Checked, todo: np.ndarray, cost: StepCost
) -> StepWork:
    return StepWork(checked.grid, todo, step.read_context(), cost, step.concurrent_blocks)


def _ways(measured: dict) -> list[dict]:
    """What was timed of a prediction, fastest first."""
    timings = measured.get("timings", [])
    return [
        timing | {"chosen": all(measured[name] == timing[name] for name in timing if name in measured)}
        for timing in sorted(timings, key=lambda timing: -timing["voxels_per_s"])
    ]


def amplification(task: BlockwiseTask) -> float:
    """Voxels that a whole block reads per voxel that it writes."""
    return math.prod(task.read_shape()) / math.prod(task.grid().block_shape)


# -- what is done ---------------------------------------------------------------------------


@contextmanager
def _database(steps: Sequence[BlockwiseTask], folder: Path, probe: bool) -> Iterator[str]:
    """URI of the database of the run; one in `folder` if there is none yet but a probe reads it."""
    first = steps[0]
    if first.db_host is not None or database_home(first.home).exists():
        with database_uri(first.db_host, first.home) as uri:
            yield uri
    elif probe and any(step.uses_rows for step in steps):
        with database_uri(None, folder / "synapses") as uri:
            yield uri
    else:
        yield ""


def _state(uri: str, step: BlockwiseTask, checked: Checked) -> _State:
    """What the database, if there is one, knows of a step."""
    nothing = np.zeros(checked.grid.shape, bool)
    if not uri:
        return _State(nothing, nothing)
    with connect(uri) as client:
        store = RunStore(client, step.db_name, step.run)
        run = store.load()
        if run is None:
            return _State(nothing, nothing)
        if run["fingerprint"] != checked.fingerprint:
            return _State(nothing, nothing, (
                f"{step.run} exists with other settings, so the command would be refused; planned as if "
                "nothing were done (--overwrite)"
            ))
        shape = checked.grid.shape
        return _State(store.mask(shape, DONE), store.mask(shape, QUARANTINED))


# -- bytes ----------------------------------------------------------------------------------


def _moved(
    step: BlockwiseTask, checked: Checked, todo: np.ndarray, cost: StepCost | None
) -> dict[str, float | str | None]:
    """Bytes in and out of the blocks to do, and what is meant by them."""
    voxels = checked.n_voxels(todo)
    into, out = cost and cost.bytes_in, cost and cost.bytes_out
    raw_in = _bytes_per_voxel(step)
    return {
        "bytes_in": voxels * into if into is not None
        else raw_in and voxels * amplification(step) * raw_in,
        "bytes_in_are": UNCOMPRESSED if into is None else MEASURED,
        "bytes_out": voxels * out if out is not None
        else sum(s.nbytes(voxels) / s.compression for s in step.output_specs()),
        "bytes_out_are": UNCOMPRESSED if out is None else MEASURED,
    }


def _bytes_per_voxel(step: BlockwiseTask) -> float | None:
    """Of the volumes that a step reads, per voxel of its grid; None if none of them exists yet."""
    size = math.prod(step.grid().frame.voxel_size)
    volumes = [
        Volume.open(getattr(step, name)) for name in volume_fields(step) if name not in ("like", "mask")
    ]
    found = [
        v.dtype.itemsize * (v.channels or 1) * size / math.prod(v.frame.voxel_size) for v in volumes
    ]
    return sum(found) if found else None


# -- machines -------------------------------------------------------------------------------


def _cpus(config: RunConfig) -> int:
    """Cores of one worker."""
    if config.workers_here:
        return max(1, len(os.sched_getaffinity(0)) // config.num_workers)
    return config.cluster.cpus or 1


def _cores(config: RunConfig, cpus: int) -> int:
    """Cores of all workers; here no more than there are."""
    cores = config.num_workers * cpus
    return min(cores, len(os.sched_getaffinity(0))) if config.workers_here else cores


def _gpus(config: RunConfig) -> int:
    """GPUs of all workers."""
    if config.workers_here:
        return min(config.num_workers, len(visible_gpus()))
    asked = re.search(r"gpu(?::[A-Za-z]\w*)?(?::(\d+))?", " ".join(
        [config.cluster.gres or "", *config.launcher_options]
    ))
    return config.num_workers * int(asked[1] or 1) if asked else 0


def choose_step(config: RunConfig, name: str) -> str:
    """The name of the run of the step ``name`` of a job.

    Raises
    ------
    ConfigError
        If there is no such step.
    """
    runs = {s.run.removeprefix(config.run).lstrip("._") or config.run: s.run for s in config.steps()}
    if name not in runs:
        raise ConfigError(f"There is no step {name!r}; the steps are {', '.join(runs)}.")
    return runs[name]
