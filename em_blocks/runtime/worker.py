"""The worker loop: acquire, process, commit, release."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import traceback
from contextlib import ExitStack
from pathlib import Path

import daisy.v2 as daisy

from em_blocks.db.commits import CommitWriter, WorkerIdentity, peak_memory_mb
from em_blocks.db.connect import connect
from em_blocks.db.runs import RunStore
from em_blocks.db.synapses import SynapseStore
from em_blocks.geometry import Block, BlockGrid
from em_blocks.runtime.job import Job
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock

log = logging.getLogger(__name__)


def run_worker(job_path: Path) -> None:
    """Do blocks of a job until none is left. The entry point of a worker process.

    What `open` of the task loads (a network, volumes) is loaded once. A failing block is
    recorded and the process goes on.

    Raises
    ------
    CommitRefusedError
        If the scheduler was replaced.
    DatabaseError
        If the database stayed away.
    """
    job = Job.load(job_path)
    task = job.task()
    grid = task.grid()
    with connect(job.uri) as client:
        store = RunStore(client, task.db_name, task.run)
        identity = WorkerIdentity(
            worker=f"{socket.gethostname()}-{os.getpid()}",
            epoch=job.epoch,
            device=os.environ.get("CUDA_VISIBLE_DEVICES") or "cpu",
        )
        synapses = SynapseStore(
            client, task.db_name, task.run, guard=lambda: store.check_epoch(job.epoch)
        )
        with ExitStack() as stack:
            try:
                process = stack.enter_context(task.start(job.measured, synapses))
            except Exception as error:
                record_start_failure(store, identity, error)
                raise
            commits = CommitWriter(store, grid, identity, max_failures=task.max_retries + 1)
            stack.callback(commits.close)
            _work(task, grid, process, commits)


def record_start_failure(store: RunStore, identity: WorkerIdentity, error: Exception) -> None:
    """Let the scheduler know that workers cannot even start."""
    store.attempts.insert_one({
        "_id": f"{store.run}/start/{identity.worker}", "run": store.run, "block": None,
        "epoch": identity.epoch, "worker": identity.worker, "host": identity.host,
        "finished": store.now(), "error": describe_error(error, "start"),
    })


def _work(
    task: BlockwiseTask, grid: BlockGrid, process: ProcessBlock, commits: CommitWriter
) -> None:
    """Hold several blocks at a time, each in a thread with a daisy client of its own.

    While one computes, others read and write: the task's stages take turns by locks.
    """
    failures: list[BaseException] = []
    threads = [
        threading.Thread(target=_loop, args=(grid, process, commits, failures), name=f"block-{n}")
        for n in range(task.concurrent_blocks)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _loop(
    grid: BlockGrid, process: ProcessBlock, commits: CommitWriter, failures: list[BaseException]
) -> None:
    try:
        client = daisy.Client()
        while commits.error is None and not failures:
            with client.acquire_block() as acquired:
                if acquired is None:
                    return
                block = grid.block(_index(acquired, grid))
                if not do_block(block, process, commits):
                    acquired.status = daisy.BlockStatus.FAILED
    except BaseException as error:  # to the main thread, which raises it
        failures.append(error)


def _index(acquired, grid: BlockGrid) -> tuple[int, ...]:
    # daisy's own block number is not dense; the grid index is.
    return tuple(
        int(b) // s for b, s in zip(acquired.write_roi.begin, grid.block_shape, strict=True)
    )


def do_block(block: Block, process: ProcessBlock, commits: CommitWriter) -> bool:
    """One attempt at one block; True if it is done."""
    report, started = BlockReport(), time.time()
    commits.holding(block)
    try:
        process(block, report)
    except Exception as error:  # a block must not end the worker: the model stays loaded
        log.exception("block %s failed in stage %s", block.key, report.stage)
        commits.failed(block, started, describe_error(error, report.stage))
        return False
    commits.done(block, started, report)
    return True


def describe_error(error: BaseException, stage: str | None) -> dict:
    """An error as stored in block and attempt documents."""
    return {
        "type": type(error).__name__,
        "message": str(error)[:2000],
        "stage": stage,
        "traceback": "".join(traceback.format_exception(error))[-8000:],
        "peak_memory_mb": peak_memory_mb(),
    }
