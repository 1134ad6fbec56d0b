"""Runs in this thread: the blocks of `schedule` without workers, recorded in the same way."""

from __future__ import annotations

import bdb
import os
import queue
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from rich.console import Console

from em_blocks.db.commits import WorkerIdentity
from em_blocks.db.connect import with_patience
from em_blocks.errors import CommitRefusedError
from em_blocks.geometry import Block
from em_blocks.runtime.launchers.environment import visible_gpus
from em_blocks.runtime.protocol.wire import Key
from em_blocks.runtime.scheduler.dispatch import Dispatcher, Worker
from em_blocks.runtime.scheduler.schedule import check_database_kept, write_last
from em_blocks.runtime.scheduler.scheduled_step import ScheduledStep
from em_blocks.runtime.scheduler.watchdog import Watchdog
from em_blocks.runtime.scheduler.worker_registry import Member, WorkerRegistry
from em_blocks.runtime.worker.step_runtime import StepRuntime, opened
from em_blocks.tasks.base import BlockwiseTask

WAIT_S = 0.05
# Not that of numba, which refuses another number once its threads run.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def do_serially(steps: Sequence[ScheduledStep], console: Console) -> tuple[bool, str | None]:
    """Do blocks in this thread until none is left to try: retries, quarantine, lease as in `schedule`.

    No process is started and nothing listens. The task need not be importable, and works under a
    debugger: no time limit ends a block, while a thread keeps the lease.

    Returns
    -------
    bool, str or None
        Whether any block failed permanently; why the run ended early, if it did.

    Raises
    ------
    KeyboardInterrupt
        At once after SIGINT, or when a debugger is quit: the current block is not recorded.
    Exception
        Whatever a task raises when it is opened.
    """
    task = steps[0].work.task
    dispatcher = Dispatcher([step.work for step in steps])
    registry = WorkerRegistry([step.store for step in steps], [step.epoch for step in steps])
    watchdog = Watchdog(
        steps, dispatcher.progress, registry, console, outage_s=task.db_outage_s, live=False
    )
    try:
        with dispatcher, watchdog, _threads_of_a_worker(task), ExitStack() as stack:
            _Serial(steps, dispatcher, registry, watchdog, stack).run()
    except CommitRefusedError:
        return watchdog.any_failed, watchdog.reason or "another scheduler took the run over"
    except bdb.BdbQuit as error:
        raise KeyboardInterrupt from error
    finally:
        if not watchdog.hopeless:
            write_last(registry)
    check_database_kept(watchdog, task)
    return watchdog.any_failed, watchdog.reason


class _Serial:
    """The one worker of a run, in the scheduler's own thread."""

    def __init__(
        self, steps: Sequence[ScheduledStep], dispatcher: Dispatcher, registry: WorkerRegistry,
        watchdog: Watchdog, stack: ExitStack,
    ):
        self._steps, self._dispatcher, self._stack = steps, dispatcher, stack
        self._registry, self._watchdog = registry, watchdog
        self._identity = identity = WorkerIdentity.of_this_process()
        identity.device = next(iter(visible_gpus()), "cpu")
        self._worker = Worker(identity.worker, identity.host)
        self._member = Member(self._worker, identity.pid, identity.device, slot="")
        self._opened: dict[int, StepRuntime] = {}
        self._recorded: queue.SimpleQueue[list[Key]] = queue.SimpleQueue()
        dispatcher.join(self._worker)
        registry.joined(self._member)
        stack.callback(registry.left, self._member, "left", "the run ended")

    def run(self) -> None:
        """Do blocks until none is left to try, or the watchdog has a reason to stop."""
        while not self._dispatcher.finished and self._watchdog.reason is None:
            key = self._dispatcher.take(self._worker)
            if key is not None:
                self._do(key)
            self._take_in(wait=key is None)

    def _do(self, key: Key) -> None:
        self._registry.holds(self._member, [key])
        step, run = self._step(key[0]), self._steps[key[0]]
        if not step.do(key[1:], lambda: self._patiently(run, lambda: run.store.check_epoch(run.epoch))):
            self._member.failed += 1
            self._dispatcher.failed(self._worker, key)

    def _take_in(self, *, wait: bool) -> None:
        """Tell the dispatcher what is recorded; if it has no other block yet, `wait` for that."""
        for step in self._opened.values():
            if wait:
                step.commits.hurry()
            if step.commits.error is not None:
                raise step.commits.error
        try:
            while True:
                for key in self._recorded.get(timeout=WAIT_S if wait else 0):
                    self._member.done += 1
                    self._dispatcher.done(self._worker, key)
                wait = False
        except queue.Empty:
            self._registry.holds(self._member, [])

    def _step(self, number: int) -> StepRuntime:
        if number not in self._opened:
            step = self._steps[number]
            self._patiently(step, lambda: self._registry.admit(self._member, number))
            self._opened[number] = self._stack.enter_context(opened(
                step.work.task, step.measured, step.store, self._identity, step.epoch,
                on_durable=lambda blocks: self._record(number, blocks),
            ))
            _limit_torch(_share(step.work.task))
        return self._opened[number]

    def _record(self, number: int, blocks: list[Block]) -> None:
        self._recorded.put([(number, *block.index) for block in blocks])

    def _patiently(self, step: ScheduledStep, call) -> None:
        with_patience(call, step.work.task.db_outage_s)


def _share(task: BlockwiseTask) -> int:
    """Threads that a worker would have: sums of floats depend on them in the last digit."""
    return max(1, len(os.sched_getaffinity(0)) // task.num_workers)


@contextmanager
def _threads_of_a_worker(task: BlockwiseTask) -> Iterator[None]:
    """Have libraries that are loaded meanwhile use as many threads as a worker would."""
    before = {name: os.environ.get(name) for name in THREADS}
    torch = sys.modules.get("torch")
    n_torch = torch and torch.get_num_threads()
    os.environ.update(dict.fromkeys(THREADS, str(_share(task))))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        if torch is not None:
            torch.set_num_threads(n_torch)


def _limit_torch(n: int) -> None:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(n)
