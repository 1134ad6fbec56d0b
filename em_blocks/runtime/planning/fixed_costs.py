"""What a run costs that does nothing: database, scheduler, start and end of workers.

Measured by a real run of steps without work, in a scratch folder.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, Self

from rich.console import Console

from em_blocks.db.connect import connect, database_uri
from em_blocks.db.server import mongod_binary
from em_blocks.db.synapses import SynapseStore
from em_blocks.errors import DatabaseError, RunFailedError
from em_blocks.geometry import Block, BlockGrid, Frame
from em_blocks.outputs import RunContext, VolumeOutput
from em_blocks.runtime.launchers.environment import worker_environment
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock


class FixedCosts(NamedTuple):
    """Seconds that do not depend on the blocks.

    Attributes
    ----------
    command_s : float
        Python and imports of the command.
    database_s : float
        Start and end of the private mongod; 0 where there is a server.
    run_s : float
        All else: leases, scheduler, start and end of workers that have nothing to do.
    """

    command_s: float
    database_s: float
    run_s: float


class NoWork(BlockwiseTask):
    """Blocks in which nothing is read, computed or written."""

    kind: Literal["no_work"] = "no_work"
    n: int

    def grid(self) -> BlockGrid:
        return BlockGrid(Frame((1.0, 1.0, 1.0)), (1, 1, self.n), self.block_shape)

    def inputs(self) -> dict:
        return {}

    def output_specs(self) -> list[VolumeOutput]:
        return []

    def outputs_root(self) -> str:
        return str(self.run_dir)

    def relocated(self, folder: Path) -> Self:
        return self.model_copy(update={"run_dir": folder})

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        def process(block: Block, report: BlockReport) -> None:
            return

        yield process


def fixed_costs(
    steps: Sequence[BlockwiseTask], *, together: bool, workers: int, folder: Path
) -> FixedCosts | None:
    """Measure what a run of `steps` costs beside its blocks; None where there is no mongod to try.

    Parameters
    ----------
    together : bool
        Whether one scheduler does all steps, block by block; else one after the other.
    workers : int
        Processes.
    folder : Path
        Scratch, for the database of the trial.
    """
    # Here, because daisy takes a second that a plan without a probe need not wait.
    from em_blocks.runtime.scheduler.run import run_steps

    try:
        mongod_binary()
    except DatabaseError:
        return None
    empty = [
        NoWork.from_dict({
            "run": f"nothing{number}", "run_dir": str(folder), "block_shape": (1, 1, 1),
            "num_workers": workers, "n": workers,
        })
        for number in range(len(steps) if together else 1)
    ]
    start = time.monotonic()
    with database_uri(None, folder) as uri:
        begin = time.monotonic()
        if any(step.uses_rows for step in steps):
            _make_indexes(uri)
        reports = run_steps(empty, console=Console(quiet=True))
        end = time.monotonic()
    if failed := next((report for report in reports if not report.ok), None):
        raise RunFailedError(
            f"A trial run of blocks without work did not end: {failed.reason or 'blocks are missing'}. "
            "The run itself would hardly do better; its time cannot be foretold. --no-probe plans "
            "blocks and bytes all the same."
        )
    database_s = begin - start + time.monotonic() - end
    return FixedCosts(
        _seconds(lambda: _import(steps[0])), database_s if steps[0].db_host is None else 0.0,
        (end - begin) * (1 if together else len(steps)),
    )


def _make_indexes(uri: str) -> None:
    """As every run with synapses does."""
    with connect(uri) as client:
        SynapseStore(client, "em_blocks", "nothing").prepare()


def _import(step: BlockwiseTask) -> None:
    """What a command does before it looks at its config."""
    modules = ("em_blocks.cli.main", "em_blocks.runtime.planning.plan",
               "em_blocks.runtime.scheduler.run", type(step).__module__)
    code = f"import {', '.join(modules)}"
    subprocess.run([sys.executable, "-c", code], env=worker_environment(1), check=True)


def _seconds(do: Callable[[], None]) -> float:
    start = time.monotonic()
    do()
    return time.monotonic() - start
