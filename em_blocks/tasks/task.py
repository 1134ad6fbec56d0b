"""The contract of a blockwise task: its own config, a block grid, and a function per block."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field

from em_blocks.config import Shape3, VolumeRef
from em_blocks.db.connect import database_home
from em_blocks.errors import BlockAlignmentError
from em_blocks.geometry import Block, BlockGrid, Triple
from em_blocks.outputs import Output, RunContext
from em_blocks.tasks.block_shape import (
    BASE_BYTES,
    DEFAULT_BLOCK,
    READ_BYTES,
    fits_into,
    largest_block,
)
from em_blocks.tasks.report import BlockReport
from em_blocks.tasks.run_config import RunConfig

USUAL_UNIT = (64, 64, 64)

ProcessBlock = Callable[[Block, BlockReport], None]


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
        """Return the blocks, in voxels of the output volume. Opens the input's metadata."""

    @abstractmethod
    def inputs(self) -> dict:
        """Return everything read that could change the result, as JSON; part of the fingerprint."""

    def sources(self) -> dict[str, VolumeRef]:
        """Return the volumes and folders of tables that blocks read, by their names in messages."""
        found = {}
        for name in (*self.reads, "mask"):
            for key, path in _named(getattr(self, name)):
                if path is not None:
                    found[name if key is None else f"{name} {key}"] = path
        return found

    def synapse_runs(self) -> list[str]:
        """Return runs whose synapses blocks read."""
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

    def is_independent(self) -> bool:
        """Return whether blocks read nothing that an earlier step of the same job writes.

        `em-blocks plan` tries such a step on its own volumes before the job has run.
        """
        return False

    def read_context(self) -> Triple:
        """Return voxels (z, y, x) around its own that a block reads of the step before."""
        return (0, 0, 0)

    def read_reach(self) -> Triple:
        """Return voxels (z, y, x) around its own beyond which a block never reads."""
        return self.read_context()

    def read_shape(self) -> Triple:
        """Return voxels (z, y, x) that one whole block reads."""
        return self.grid().block_shape

    def block_unit(self) -> Triple:
        """Return voxels (z, y, x) that a block which the config does not give is a multiple of."""
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
        """Return keys of inputs that may hold outputs: volumes that get scales, folders of tables."""
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
        """Return what else a user may do if a run was made with settings that differ so."""
        return ""

    def alike(self) -> dict | None:
        """Return the query of the runs whose measured values this one should agree with."""
        return None

    def measure(self, earlier: dict | None = None) -> dict:
        """Return values measured once per run and kept in its document, e.g. percentiles.

        Parameters
        ----------
        earlier : dict, optional
            What the newest run that is `alike` measured.
        """
        return {}

    def measured_anew(self, measured: dict) -> dict:
        """Return `measured`, but for what follows from what the inputs hold, which changed since."""
        return measured

    def said(self, measured: dict) -> str | None:
        """Return what a user wants to know of values that were just measured, in one line."""
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
        """Return everything that decides what the outputs hold."""
        config = self.model_dump(mode="json", exclude=set(self.operational) | self.locations())
        return {
            "task": {"kind": self.kind, "version": self.version},
            "config": self.without_places(config),
            "inputs": self.inputs(),
            "outputs": [output.identity() for output in self.output_specs()],
        }

    @classmethod
    def without_places(cls, config: dict) -> dict:
        """Return a config whose inputs are no longer named by where they lie."""
        return {
            key: _without_path(value) if key in (*cls.reads, "mask") else value
            for key, value in config.items()
        }

    @classmethod
    def locations(cls) -> set[str]:
        """Return fields that say where outputs go: a run may be moved, but not without notice."""
        return {"output"}

    def stored_config(self) -> dict:
        """Return the config for the database: all but the address of the database itself."""
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


def _named(value: Any) -> Iterable[tuple[object, Any]]:
    """Return the inputs of one key by their names in it; None for that of a key with one input."""
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, tuple) else [(None, value)]


def _without_path(value: object) -> object:
    """Return what a config says of an input apart from its place; {} for nothing else."""
    if isinstance(value, str):
        return {}
    if isinstance(value, list):
        return [_without_path(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _without_path(item) for key, item in value.items() if key != "path"}
