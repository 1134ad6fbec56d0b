"""A step whose blocks this process does: its task opened, and the writer of its commits."""

from __future__ import annotations

import bdb
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from em_blocks.db.commits import CommitWriter, WorkerIdentity, peak_memory_mb
from em_blocks.db.connect import scrub
from em_blocks.db.runs import RunStore
from em_blocks.errors import CommitRefusedError, SchedulerLostError
from em_blocks.geometry import Block, BlockGrid, Triple
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepRuntime:
    """Processes blocks of one step and has them recorded.

    Attributes
    ----------
    task : BlockwiseTask
    grid : BlockGrid
    process : function of a Block and a BlockReport
        Does one block.
    commits : CommitWriter
    """

    task: BlockwiseTask
    grid: BlockGrid
    process: ProcessBlock
    commits: CommitWriter

    def do(self, index: Triple, fence: Callable[[], None]) -> bool:
        """Process a block and queue its commit; return False if it failed, which is then recorded.

        Parameters
        ----------
        index : (z, y, x)
        fence : function
            Called before anything is written; raises if another worker may have the block.
        """
        report, started = BlockReport(fence=fence), time.time()
        block = self.grid.block(index)
        try:
            self.process(block, report)
        except (SchedulerLostError, CommitRefusedError, bdb.BdbQuit):
            raise  # not the block's fault, and the database would reject its record
        except Exception as error:  # a block must not end the worker: the model stays loaded
            log.exception("block %s failed in stage %s", block.key, report.stage)
            self.commits.failed(block, started, describe_error(error, report.stage))
            return False
        self.commits.done(block, started, report)
        return True


@contextmanager
def opened(
    task: BlockwiseTask, measured: dict | None, store: RunStore, identity: WorkerIdentity, epoch: int,
    on_durable: Callable[[list[Block]], None],
) -> Iterator[StepRuntime]:
    """Open a task in this process and yield what does its blocks; commits are written at the end.

    Parameters
    ----------
    measured : dict
        Values measured once for the run.
    store : RunStore
        Of the run; it must list the worker before its first commit.
    identity : WorkerIdentity
        Of this process.
    epoch : int
        Of the scheduler that counts on it.
    on_durable : function of a list of Block
        Told which blocks are recorded, by the writing thread.
    """
    context = RunContext(
        measured or {}, store, guard=lambda: store.check_worker(identity.worker, epoch),
        outage_s=task.db_outage_s,
    )
    with task.open(context) as process:
        grid = task.grid()
        commits = CommitWriter(
            store, grid, replace(identity, epoch=epoch), max_failures=task.max_retries + 1,
            outage_s=task.db_outage_s, on_durable=on_durable,
        )
        try:
            yield StepRuntime(task, grid, process, commits)
        finally:
            commits.close()


def record_start_failure(store: RunStore, worker: str, host: str, epoch: int, error: Exception) -> None:
    """Record that a worker could not even start: its scheduler ends the run after a few of them."""
    store.attempts.insert_one({
        "_id": f"{store.run}/start/{worker}", "run": store.run, "block": None, "epoch": epoch,
        "worker": worker, "host": host, "finished": store.now(),
        "error": describe_error(error, "start"),
    })


def describe_error(error: BaseException, stage: str | None) -> dict:
    """Return an error as it is stored in block and attempt documents."""
    return {
        "type": type(error).__name__,
        "message": scrub(str(error))[:2000],
        "stage": stage,
        "traceback": scrub("".join(traceback.format_exception(error)))[-8000:],
        "peak_memory_mb": peak_memory_mb(),
    }
