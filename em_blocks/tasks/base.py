"""What every blockwise task is: its own config, a block grid, and a function per block."""

from __future__ import annotations

import hashlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import numpy as np
import psutil
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from em_blocks.config import LocalPath, Shape3, StrictModel, VolumeRef, is_url
from em_blocks.db.connect import database_home
from em_blocks.db.rows import RowStore
from em_blocks.db.schemas.base import Flags, Table
from em_blocks.errors import BlockAlignmentError, ConfigError
from em_blocks.geometry import Block, BlockGrid, Box, Triple
from em_blocks.outputs import Output, RowOutput, RunContext
from em_blocks.outputs.volume import checksum
from em_blocks.tasks.block_shape import (
    BASE_BYTES,
    DEFAULT_BLOCK,
    READ_BYTES,
    fits_into,
    largest_block,
)
from em_blocks.tasks.cluster import LAUNCHERS, Cluster, Container, LauncherName
from em_blocks.tasks.run_name import run_name
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.tables import BlockTables, checksum_of_columns

USUAL_UNIT = (64, 64, 64)

RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


@dataclass
class BlockReport:
    """What one attempt at one block measured; becomes part of the block's document.

    Attributes
    ----------
    seconds : dict
        Seconds per stage (read, compute, write), waiting not counted.
    counts : dict
        Whatever the task counts, e.g. saturated voxels.
    checksums : dict
        CRC-32 of the stored values per output, so that `em-blocks verify` can tell
        a damaged block from a good one.
    stage : str or None
        Stage that is running, or that failed.
    fence : function
        Called before anything is written; raises if the scheduler gave the block to another worker.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    checksums: dict[str, int] = field(default_factory=dict)
    stage: str | None = None
    fence: Callable[[], None] = lambda: None

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Time one stage. On an error, `stage` keeps its name."""
        self.stage = stage
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
        self.stage = None

    def write(self, name: str, volume: Volume, box: Box, values: np.ndarray) -> None:
        """Store a block's values and remember their checksum."""
        self.fence()
        volume.write(box, values)
        self.checksums[name] = checksum(values)

    def write_table(
        self, name: str, tables: BlockTables, block: Block, columns: Mapping[str, np.ndarray]
    ) -> None:
        """Store a block's rows and remember their checksum."""
        self.fence()
        tables.write(block.key, columns)
        self.checksums[name] = checksum_of_columns(columns)

    def write_rows(
        self, output: RowOutput, store: RowStore[Table], block: Block, rows: Table, flags: Flags
    ) -> None:
        """Store a block's rows in the database and remember their checksum."""
        self.fence()
        store.replace_block(block.key, rows, flags)
        self.checksums[output.name] = output.checksum(rows, flags)


ProcessBlock = Callable[[Block, BlockReport], None]


class RunConfig(StrictModel, ABC):
    """What all runs have in common: name, place, database, workers."""

    operational: ClassVar[frozenset[str]] = frozenset(
        {"run", "run_dir", "db_host", "db_name", "num_workers", "block_timeout_s", "max_retries",
         "launcher", "launcher_options", "cluster", "container", "scheduler_host", "scheduler_port",
         "worker_timeout_s", "db_outage_s", "speculate", "incomplete_inputs"}
    )
    """Fields that say how to run, not what comes out; not part of the fingerprint."""

    fits_block: ClassVar[bool] = False
    """Whether a block shape that the config does not give follows from the memory of a worker."""

    reads: ClassVar[tuple[str, ...]] = ()
    """Fields that name volumes and folders of tables to read, besides the mask. What they hold decides
    the result, not how they are spelt: the fingerprint knows them by their contents."""

    run: RunName = Field(description="Name of the run in the database; the key for resuming it.")
    run_dir: LocalPath | None = Field(
        None,
        description="Folder for summary.json, logs and the embedded database. "
        "Default: the folder that holds the output; needed if that is in an object store.",
    )
    mask: VolumeRef | None = Field(
        None,
        description="Volume of any voxel size; a block where it is 0 everywhere is not computed.",
    )
    incomplete_inputs: Literal["refuse", "skip"] = Field(
        "refuse",
        description="What to do about an input whose own run is not complete. refuse: do not start. "
        "skip: blocks that read what is missing wait, the run ends with exit code 1 and names them, and "
        "the same command does them when the input is complete.",
    )
    num_workers: PositiveInt = Field(1, description="Worker processes (slots).")
    launcher: LauncherName = Field(
        "local",
        description="How worker processes are started: here, by Slurm, by LSF, or by hand with "
        "`em-blocks join`.",
    )
    cluster: Cluster = Field(Cluster(), description="What a worker asks of the cluster.")
    launcher_options: tuple[str, ...] = Field(
        (), description='Further options of srun, sbatch or bsub, for example ["--qos=long"].'
    )
    container: Container | None = Field(None, description="Run workers in a container.")
    scheduler_host: str = Field(
        "127.0.0.1",
        description="Address of this machine that workers connect to; only that interface listens.",
    )
    scheduler_port: int = Field(
        0, ge=0, le=65535, description="Port that workers connect to; 0 takes any that is free."
    )
    db_host: str | None = Field(
        None,
        description="MongoDB host or URI, or file:PATH of a private file with it; environment "
        "variables are expanded, so no password needs to stand here. Default: a private mongod in "
        "run_dir.",
    )
    db_name: str = Field("em_blocks", pattern=r"^[A-Za-z0-9_-]{1,60}$")
    block_timeout_s: PositiveFloat | None = Field(
        None,
        description="A block that takes longer is given to another worker. Default: an hour until "
        "five blocks have been measured, then 20 times the longest of nine in ten, at least 2 min.",
    )
    worker_timeout_s: PositiveFloat = Field(
        30, ge=2,
        description="A worker whose host does not answer for so long is lost; others do its blocks.",
    )
    db_outage_s: PositiveFloat = Field(
        120, description="How long scheduler and workers wait for a database that does not answer."
    )
    speculate: bool = Field(
        False,
        description="Give blocks that take unusually long to a second, idle worker; the first counts.",
    )
    max_retries: NonNegativeInt = Field(
        2, description="Further attempts at a failing block before it is quarantined."
    )

    def __init__(self, **values: Any):
        """Make the task in Python, where `kind` need not be given, nor `run` (see `run_name`)."""
        kind = type(self).model_fields["kind"]
        if kind.is_required():
            values.setdefault("kind", *get_args(kind.annotation))
        values.setdefault("run", run_name(values.get("output"), values.get("kind", kind.default)))
        super().__init__(**values)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # as in StrictModel

    @abstractmethod
    def steps(self) -> list[BlockwiseTask]:
        """The tasks that together make the result, each reading what those before it wrote."""

    @property
    def first_run(self) -> str:
        """Name of the run of the first step."""
        return self.run

    def memory_of_worker(self) -> float:
        """Return the bytes that a worker may use: as stated, else its share of half of this machine."""
        stated = self.cluster.memory_gb
        return stated * 1e9 if stated else psutil.virtual_memory().total / self.num_workers / 2

    def with_block(self, shape: Triple) -> Self:
        """Return the same task with this block shape, voxels (z, y, x)."""
        return self.model_copy(update={"block_shape": shape})

    def fitted(self) -> Self:
        """Return the same task with the largest block shape whose worker fits into its memory.

        Raises
        ------
        ConfigError
            If not even the smallest block fits.
        """
        return self

    def publish(self) -> None:
        """Finish what is not of any block when all are done, e.g. metadata of a pyramid."""

    @property
    def home(self) -> Path:
        """Folder of summary.json, logs and the embedded database."""
        if self.run_dir is not None:
            return self.run_dir
        container = self.outputs_root()
        if is_url(container):
            raise ConfigError(
                f"The output {container} is in an object store, so the key 'run_dir' must name a "
                "local folder for summary.json, logs and the database."
            )
        return Path(container).parent

    @property
    def workers_here(self) -> bool:
        """Whether workers run on this machine, so that measurements in this process hold for them."""
        return LAUNCHERS.get(self.launcher).local

    @abstractmethod
    def outputs_root(self) -> str:
        """Path or URL of the container of all outputs."""


class BlockwiseTask(RunConfig):
    """A task is its config: one JSON for the user, the database and every worker.

    Subclasses add a field ``kind: Literal["name"]`` (without default), their own fields, and
    the abstract methods below. A block must be idempotent: replacing what an earlier,
    killed attempt left behind, never adding to it.
    """

    version: ClassVar[int] = 1
    """Raised when the task's code changes its results; part of the fingerprint."""

    written: ClassVar[frozenset[str]] = frozenset({"output"})
    """Fields that name what the blocks write; all other paths of a config are read."""

    concurrent_blocks: ClassVar[int] = 1
    """Blocks that one worker holds at a time, to overlap reading, computing and writing."""

    worker_module: ClassVar[str] = "em_blocks.workers.block_worker"
    """Module that the launcher starts for this task."""

    fits_block: ClassVar[bool] = True

    block_shape: Shape3 | None = Field(None, description=DEFAULT_BLOCK)

    # -- what a task defines ------------------------------------------------------

    @abstractmethod
    def grid(self) -> BlockGrid:
        """The blocks, in voxels of the output volume. Opens the input's metadata."""

    @abstractmethod
    def inputs(self) -> dict:
        """Everything read that could change the result, as JSON; part of the fingerprint."""

    def sources(self) -> dict[str, VolumeRef]:
        """The volumes and folders of tables that blocks read, by what messages call them."""
        found = {}
        for name in (*self.reads, "mask"):
            value = getattr(self, name)
            for key, path in value.items() if isinstance(value, dict) else [(None, value)]:
                if path is not None:
                    found[name if key is None else f"{name} {key}"] = path
        return found

    def synapse_runs(self) -> list[str]:
        """Runs whose synapses blocks read."""
        return []

    @abstractmethod
    def output_specs(self) -> Sequence[Output]:
        """Return the volumes, tables and rows that the blocks write."""

    @abstractmethod
    def open(self, context: RunContext) -> AbstractContextManager[ProcessBlock]:
        """Open inputs and outputs once per worker; yield the function that does a block."""

    def relocated(self, folder: Path) -> Self:
        """Return the same task, writing files below `folder`: for probes and replays.

        Rows need no other place: the context of a probe drops their changes.
        """
        own = {name: str(folder / name) for name in self.written if getattr(self, name, None)}
        return self.model_copy(update={**own, "run_dir": folder})

    def steps(self) -> list[BlockwiseTask]:
        return [self]

    def read_context(self) -> Triple:
        """Voxels (z, y, x) around its own that a block reads of the step before."""
        return (0, 0, 0)

    def read_reach(self) -> Triple:
        """Voxels (z, y, x) around its own beyond which a block never reads."""
        return self.read_context()

    def read_shape(self) -> Triple:
        """Voxels (z, y, x) that one whole block reads."""
        return self.grid().block_shape

    def block_unit(self) -> Triple:
        """Voxels (z, y, x) that a block which the config does not give is a multiple of."""
        units = [unit for output in self.output_specs() if (unit := output.unit_shape)]
        return tuple(map(math.lcm, *units)) if units else USUAL_UNIT

    def worker_bytes(self) -> float:
        """Estimate the memory of a worker, to choose a block shape."""
        written = sum(
            math.prod(self.block_shape) * (spec.channels or 1) * 8 for spec in self.output_specs()
        )
        read = math.prod(self.read_shape()) * READ_BYTES
        return BASE_BYTES + self.concurrent_blocks * (read + written)

    def fitted(self) -> Self:
        fits = fits_into(
            self.memory_of_worker(), lambda shape: self.with_block(shape).worker_bytes()
        )
        return self.with_block(largest_block(
            self.grid(), self.block_unit(), num_workers=self.num_workers, fits=fits
        ))

    def grown_inputs(self) -> set[str]:
        """Keys of inputs that may hold outputs: volumes that get further scales, folders of tables."""
        return set()

    def check(self) -> None:
        """Raise an `EmBlocksError` for whatever would make every block fail."""

    def check_rows(self, context: RunContext) -> None:
        """Raise an `EmBlocksError` for what the database holds that would make the run fail.

        Called before anything of the run is written.
        """

    def survey(self) -> None:
        """Look at a bounded sample of the inputs: warn of what is odd in parts of it.

        Raises
        ------
        EmBlocksError
            For what would make the whole result worthless.
        """

    def other_ways(self, differences: list[str]) -> str:
        """What else a user may do if a run was made with settings that differ so."""
        return ""

    def alike(self) -> dict | None:
        """Query of the runs of a database whose measured values help this one to agree with them."""
        return None

    def measure(self, earlier: dict | None = None) -> dict:
        """Values measured once per run and kept in its document, e.g. percentiles.

        Parameters
        ----------
        earlier : dict, optional
            What the newest run that is `alike` measured.
        """
        return {}

    def measured_anew(self, measured: dict) -> dict:
        """`measured`, but for what follows from what the inputs hold, which changed since."""
        return measured

    def said(self, measured: dict) -> str | None:
        """What a user wants to know of values that were just measured, in one line."""
        return None

    # -- what follows from it -----------------------------------------------------

    @property
    def uses_rows(self) -> bool:
        """Whether blocks read or write rows of the database."""
        return bool(self.synapse_runs()) or any(
            output.ledger_path is None for output in self.output_specs()
        )

    @property
    def database_folder(self) -> str | None:
        """Folder of the embedded database; None if there is a server."""
        return str(database_home(self.home)) if self.db_host is None else None

    def identity(self) -> dict:
        """Everything that decides what the outputs hold."""
        config = self.model_dump(mode="json", exclude=set(self.operational) | self.locations())
        return {
            "task": {"kind": self.kind, "version": self.version},
            "config": self.without_places(config),
            "inputs": self.inputs(),
            "outputs": [output.identity() for output in self.output_specs()],
        }

    @classmethod
    def without_places(cls, config: dict) -> dict:
        """A config whose inputs are no longer named by where they lie."""
        return {
            key: _without_path(value) if key in (*cls.reads, "mask") else value
            for key, value in config.items()
        }

    @classmethod
    def locations(cls) -> set[str]:
        """Fields that say where outputs go: a run may be moved, but not without notice."""
        return {"output"}

    def stored_config(self) -> dict:
        """The config for the database: all but the address of the database itself."""
        return self.model_dump(mode="json", exclude={"db_host"})

    def check_alignment(self) -> None:
        """Raise `BlockAlignmentError` unless a block is whole chunks of every output."""
        block_shape = self.grid().block_shape
        for output in self.output_specs():
            unit = output.unit_shape
            if unit is None or all(b % c == 0 for b, c in zip(block_shape, unit, strict=True)):
                continue
            nearest = tuple(
                max(1, round(b / c)) * c for b, c in zip(block_shape, unit, strict=True)
            )
            raise BlockAlignmentError(
                f"block_shape {block_shape} is not a multiple of the "
                f"{output.unit} {unit} of the output "
                f"{output.name!r} (voxels, zyx). Two workers would write the same chunk and one write "
                f"would be lost. Use block_shape {nearest}, or chunks that divide the block."
            )


def _without_path(value: object) -> object:
    """What a config says of an input apart from its place; {} for nothing else."""
    if isinstance(value, str):
        return {}
    if not isinstance(value, dict):
        return value
    return {key: _without_path(item) for key, item in value.items() if key != "path"}


def fingerprint(identity: dict) -> str:
    """sha256 of an identity, as hex."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def differing_fields(old: dict, new: dict, path: str = "") -> list[str]:
    """``field: old -> new`` for every leaf that differs between two identities."""
    return [f"{field}: {a!r} -> {b!r}" for field, a, b in differences(old, new, path)]


def differences(old: dict, new: dict, path: str = "") -> Iterator[tuple[str, object, object]]:
    """Path, old and new value of every leaf that differs between two identities."""
    for key in sorted(old.keys() | new.keys()):
        a, b, here = old.get(key), new.get(key), f"{path}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differences(a, b, f"{here}.")
        elif a != b:
            yield here, a, b
