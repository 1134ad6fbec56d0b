"""The worker loop: take, process, write, commit."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from em_blocks.db.commits import WorkerIdentity
from em_blocks.db.connect import connect
from em_blocks.db.runs import RunStore
from em_blocks.errors import EmBlocksError, SchedulerLostError
from em_blocks.geometry import Block
from em_blocks.runtime.protocol.job import Job, Session
from em_blocks.runtime.protocol.wire import Key
from em_blocks.runtime.worker.client import Client
from em_blocks.runtime.worker.step_runtime import StepRuntime, opened, record_start_failure
from em_blocks.runtime.worker.walltime import Walltime
from em_blocks.tasks.base import BlockwiseTask

log = logging.getLogger(__name__)

GRACE_S = 20.0
EXIT_LEFT = 4


def main(session_path: Path) -> None:
    """Run a worker process, from its session file to its exit code."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        run_worker(Session.load(session_path))
    except EmBlocksError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.stderr.flush()
        # Threads may still compute a block that no longer counts.
        os._exit(error.exit_code)


def run_worker(session: Session) -> None:
    """Do blocks until none is left. The entry point of a worker process.

    A task is opened once (a network, volumes). A failing block is recorded and the process goes on.

    Raises
    ------
    SchedulerLostError
        If the scheduler cannot be reached, or no longer counts on this worker.
    CommitRefusedError
        If the scheduler was replaced.
    DatabaseError
        If the database stayed unavailable.
    """
    # Ctrl-C reaches every process of a terminal; the scheduler decides what follows from it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    identity = WorkerIdentity.of_this_process()
    client = Client(session.address, session.secret, {
        "worker": identity.worker, "host": identity.host, "pid": identity.pid,
        "device": identity.device, "slot": os.environ.get("EM_BLOCKS_SLOT", ""),
    })
    signal.signal(signal.SIGTERM, lambda *_: client.leave(within_s=GRACE_S))
    with ExitStack() as stack:
        steps = Steps(session.steps, identity, client, stack)
        Walltime.of_this_job(steps.tasks[0].cluster.walltime_min).leave_in_time(client)
        _work(steps, client)


class Steps:
    """The steps of a session; each is opened at its first block and stays open.

    Parameters
    ----------
    jobs : list of Job
    identity : WorkerIdentity
    client : Client
    stack : contextlib.ExitStack
        Closes them.

    Raises
    ------
    Exception
        Whatever prevents a task from being made; it is recorded first.
    """

    def __init__(self, jobs: list[Job], identity: WorkerIdentity, client: Client, stack: ExitStack):
        self._jobs, self._identity, self._client, self._stack = jobs, identity, client, stack
        self._opened: dict[int, StepRuntime] = {}
        self._opening = threading.Lock()
        self.tasks = [self._task(job) for job in jobs]

    def __getitem__(self, step: int) -> StepRuntime:
        with self._opening:
            if step not in self._opened:
                self._opened[step] = self._open(step)
            return self._opened[step]

    @property
    def n_threads(self) -> int:
        """Blocks to hold at a time, which every step can do."""
        return min(task.concurrent_blocks for task in self.tasks)

    def hurry(self) -> None:
        """Have commits written at once: there is no next block yet."""
        for step in list(self._opened.values()):
            step.commits.hurry()

    @property
    def error(self) -> Exception | None:
        """Why commits are no longer possible, if so."""
        errors = (step.commits.error for step in list(self._opened.values()))
        return next((error for error in errors if error is not None), None)

    def close(self) -> None:
        """Write the commits of all done blocks. Raises why it could not."""
        for step in list(self._opened.values()):
            step.commits.close()

    def _task(self, job: Job) -> BlockwiseTask:
        try:
            return job.task()
        except Exception as error:
            config = job.config
            with connect(job.uri, outage_s=config["db_outage_s"]) as mongo:
                store = RunStore(mongo, config["db_name"], config["run"])
                self._record(store, job, error)
            raise

    def _open(self, number: int) -> StepRuntime:
        job, task = self._jobs[number], self.tasks[number]
        mongo = self._stack.enter_context(connect(job.uri, outage_s=task.db_outage_s))
        store = RunStore(mongo, task.db_name, task.run)
        step = opened(
            task, job.measured, store, self._identity, job.epoch,
            on_durable=lambda blocks: self._tell(number, blocks),
        )
        try:
            return self._stack.enter_context(step)
        except Exception as error:
            self._record(store, job, error)
            raise

    def _record(self, store: RunStore, job: Job, error: Exception) -> None:
        identity = self._identity
        record_start_failure(store, identity.worker, identity.host, job.epoch, error)

    def _tell(self, number: int, blocks: list[Block]) -> None:
        self._client.done(*((number, *block.index) for block in blocks))


def _work(steps: Steps, client: Client) -> None:
    """Hold several blocks at a time, each in a thread.

    While one computes, others read and write: the task's stages take turns by locks.
    """
    failures: list[BaseException] = []
    threads = [
        threading.Thread(target=_loop, args=(steps, client, failures), name=f"block-{n}", daemon=True)
        for n in range(steps.n_threads)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        threads[0].join(0.05) if threads[0].is_alive() else time.sleep(0.05)
        if not failures and (error := steps.error) is not None:
            # No further block: the scheduler would wait for those that are done.
            failures.append(error)
            client.leave(within_s=GRACE_S)
        if client.deadline is not None and time.monotonic() > client.deadline:
            _leave_now(steps, client)
    if failures:
        client.bye(f"{type(failures[0]).__name__}: {failures[0]}"[:300], fault=True)
        raise failures[0]
    _end(steps, client)


def _loop(steps: Steps, client: Client, failures: list[BaseException]) -> None:
    try:
        while not failures and (key := client.take(idle=steps.hurry)) is not None:
            _do(key, steps[key[0]], client)
    except BaseException as error:  # to the main thread, which raises it
        failures.append(error)
        client.leave(within_s=GRACE_S)


def _do(key: Key, step: StepRuntime, client: Client) -> None:
    started = time.time()
    if step.do(key[1:], client.wait_until_fresh):
        client.longest_s = max(client.longest_s, time.time() - started)
    else:
        client.failed(key)


def _leave_now(steps: Steps, client: Client) -> None:
    """Leave at once: finished blocks are recorded, running ones are requeued."""
    steps.hurry()
    time.sleep(0.5)
    if client.out_of_time and not client.longest_s:
        client.bye("its walltime ended before it had done a single block", too_long=True)
    else:
        client.bye("it had to leave before its blocks were finished")
    log.info("left its running blocks to other workers (scheduler: %s)", client.lost or "connected")
    sys.stderr.flush()
    os._exit(EXIT_LEFT)


def _end(steps: Steps, client: Client) -> None:
    steps.close()
    if client.lost is not None and not client.dismissed:
        raise SchedulerLostError(f"The scheduler was lost ({client.lost}); this worker ends.")
    client.bye("no further blocks")
    if not client.dismissed:
        sys.exit(EXIT_LEFT)  # told to go by a signal or its walltime: there may be more to do
