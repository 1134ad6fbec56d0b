"""The figures of a plan; `dataclasses.asdict` of them is what ``em-blocks plan --json`` prints."""

from __future__ import annotations

from dataclasses import dataclass, field

from em_blocks.geometry import Triple

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
        quarantined until `em-blocks retry`; and those that a run would do now.
    read_amplification : float
        Voxels that a whole block reads per voxel that it writes.
    bytes_in, bytes_out : float or None
        Of the blocks left; `bytes_in_are` and `bytes_out_are` are `MEASURED` (from and to files, by
        the probe) or `UNCOMPRESSED`.
    seconds_per_block : float or None
        Of a whole block, while all workers work. None without a probe, as for the next three.
    worker_start_s : float or None
        More than this for the first block of each worker: opening, loading, compiling.
    memory_mb : float or None
        Peak of a worker.
    wall_s : float or None
        Of this step alone, without the start of the command.
    note : str or None
        Further remark, such as why there is no time.
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
    """All steps together; None where a figure is not known.

    `memory_mb` is the largest peak of a worker, `fixed_s` the part of `wall_s` that does not depend
    on blocks, `wall_s` the time of the whole command and `known_wall_s` that without the steps
    that could not be tried; hours are workers times their cores (GPUs) times `wall_s`.
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
class BetterBlock:
    """A block shape (voxels, zyx) that is worth a try: its reads, and seconds of all blocks if tried.

    `now_s` are the seconds with the shape of the config.
    """

    block_shape: Triple
    read_amplification: float
    wall_s: float | None
    now_s: float | None


@dataclass(frozen=True)
class Plan:
    """What a job will cost: steps, totals, and notes on what the figures do not include.

    `gpus` are those of all workers; `probed` tells whether blocks were tried.
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
