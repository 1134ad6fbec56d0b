"""Choice of the next block for a worker: no sockets, no database, an injected clock.

daisy keeps the order of blocks and what they depend on. What it leaves open is decided here:
attempts, their pauses and hosts, blocks that take too long, workers that are lost.
"""

from __future__ import annotations

import functools
import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import daisy.v2 as daisy
import numpy as np

from em_blocks.geometry import BlockGrid
from em_blocks.runtime.protocol.wire import Key
from em_blocks.runtime.scheduler.attempts import Attempts, Waiting, Worker
from em_blocks.runtime.scheduler.block_times import BlockTimes
from em_blocks.tasks.base import BlockwiseTask

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
ELSEWHERE_S = 30.0


@dataclass(frozen=True)
class Work:
    """The blocks of one step that are to be done.

    Attributes
    ----------
    task : BlockwiseTask
    grid : BlockGrid
    todo : (z, y, x) bool array
        Blocks of `grid` to do.
    n_voxels : int
        Of these blocks.
    """

    task: BlockwiseTask
    grid: BlockGrid
    todo: np.ndarray
    n_voxels: int = 0


@dataclass
class StepProgress:
    """Counts of one step in this start of the run.

    Attributes
    ----------
    done, failed : int
        Blocks that ended, and those that failed permanently.
    orphaned : int
        Blocks that cannot be done because others failed.
    """

    done: int = 0
    failed: int = 0
    orphaned: int = 0


@dataclass
class _Entry:
    """A block between its first attempt and its end."""

    block: daisy.Block
    holders: dict[Worker, float] = field(default_factory=dict)
    failures: int = 0
    timeouts: int = 0
    avoid: set[str] = field(default_factory=set)
    warned: bool = False


class Dispatcher:
    """Hands out the blocks of some steps until none is left to try.

    Of several steps the last with a block that is ready goes first, so that results come early
    and what the steps pass on to each other is still in the caches.

    Parameters
    ----------
    works : sequence of Work
        A block waits for those of the work before that its reads touch.
    clock : function
        Seconds, from any start.
    """

    def __init__(self, works: Sequence[Work], clock: Callable[[], float] = time.monotonic):
        self._works, self._clock = works, clock
        self._scheduler: daisy.Scheduler | None = None
        self._entries: dict[Key, _Entry] = {}
        self._hosts: dict[str, int] = {}
        self._attempts = [Attempts() for _ in works]
        self._waiting = [Waiting() for _ in works]
        self._exhausted = [False for _ in works]
        self.times = [BlockTimes(work.task.block_timeout_s) for work in works]
        self.progress = [StepProgress() for _ in works]
        self.accepting = True

    def __enter__(self) -> Dispatcher:
        """daisy's scheduler is bound to the thread that makes it: enter, use and leave in one."""
        self._scheduler = daisy.Scheduler(
            functools.reduce(operator.add, (_daisy_task(work) for work in self._works))
        )
        return self

    def __exit__(self, *exc) -> None:
        self._scheduler = None

    # -- workers ------------------------------------------------------------------------

    def join(self, worker: Worker) -> None:
        """Add a worker; its host becomes a place to try a block again."""
        self._hosts[worker.host] = self._hosts.get(worker.host, 0) + 1

    def leave(self, worker: Worker, *, blame: bool) -> list[Key]:
        """Remove a worker; return the blocks that it held, which are requeued.

        Parameters
        ----------
        blame : bool
            Whether its process died, which a block that it held may have caused. A block that was
            held in too many of such deaths fails permanently.
        """
        self._hosts[worker.host] -= 1
        if not self._hosts[worker.host]:
            del self._hosts[worker.host]
        keys = self.held_by(worker)
        for key in keys:
            if blame:
                self.failed(worker, key)
            else:
                self._release(worker, key)
                self._again(key, pause=0.0)
        return keys

    def held_by(self, worker: Worker) -> list[Key]:
        """Return the blocks that a worker has."""
        return [key for attempts in self._attempts for key in attempts.of(worker)]

    # -- blocks -------------------------------------------------------------------------

    def take(self, worker: Worker) -> Key | None:
        """Return the next block for a worker; None if there is none for it now."""
        if not self.accepting:
            return None
        for step in reversed(range(len(self._works))):
            key = self._retry(worker, step) or self._fresh(step) or self._doubtful(worker, step)
            if key is not None:
                self._hold(worker, key)
                return key
        return None

    def done(self, worker: Worker, key: Key) -> None:
        """Note that a block is recorded as done in the database."""
        entry = self._entries.get(key)
        if entry is None:
            return  # another worker was faster
        if worker in entry.holders:
            self.times[key[0]].add(self._clock() - entry.holders[worker])
        self._finish(key, entry, daisy.BlockStatus.SUCCESS)
        self.progress[key[0]].done += 1

    def failed(self, worker: Worker, key: Key) -> None:
        """End an attempt as failed: another follows after a pause, elsewhere if possible, or none."""
        entry = self._entries.get(key)
        if entry is None or worker not in entry.holders:
            return
        entry.failures += 1
        entry.avoid.add(worker.host)
        self._release(worker, key)
        if entry.holders:
            return  # another worker may still succeed
        if entry.failures > self._works[key[0]].task.max_retries:
            self._finish(key, entry, daisy.BlockStatus.FAILED)
            self.progress[key[0]].failed += 1
        else:
            self._again(key, min(FIRST_PAUSE_S * 2 ** (entry.failures - 1), LONGEST_PAUSE_S))

    def overdue(self) -> list[tuple[Worker, Key]]:
        """Return attempts that took longer than a block may."""
        now = self._clock()
        return [
            (worker, key) for times, attempts in zip(self.times, self._attempts, strict=True)
            for worker, key, since in attempts.begun_before(now - times.limit(0))
            if now - since > times.limit(self._entries[key].timeouts)
        ]

    def timed_out(self, worker: Worker, key: Key) -> None:
        """End an attempt because of its time; the next one may take twice as long."""
        entry = self._entries.get(key)
        if entry is not None and worker in entry.holders:
            entry.timeouts += 1
            self.failed(worker, key)

    def stragglers(self) -> list[tuple[Worker, Key, float]]:
        """Return attempts that take unusually long, with their seconds; each block once."""
        now, found = self._clock(), []
        for times, attempts in zip(self.times, self._attempts, strict=True):
            for worker, key, since in attempts.begun_before(now - times.unusual_s):
                entry = self._entries[key]
                if not entry.warned:
                    entry.warned = True
                    found.append((worker, key, now - since))
        return found

    @property
    def finished(self) -> bool:
        """Whether no block is left to try, or none may be begun and none is running."""
        if not self.accepting:
            return not any(self._attempts)
        return not self._entries and all(self._is_done(step) for step in range(len(self._works)))

    @property
    def choosy(self) -> bool:
        """Whether one worker may get a block where another got none."""
        return any(
            waiting or work.task.speculate
            for work, waiting in zip(self._works, self._waiting, strict=True)
        )

    def stop(self) -> None:
        """Hand out no further block."""
        self.accepting = False

    @property
    def n_held(self) -> int:
        """Blocks that workers have."""
        return sum(bool(entry.holders) for entry in list(self._entries.values()))

    # -- rules ----------------------------------------------------------------------------

    def _retry(self, worker: Worker, step: int) -> Key | None:
        now = self._clock()
        for key, due in self._waiting[step].ready(now):
            if self._suits(worker, self._entries[key], now - due):
                return key
        return None

    def _suits(self, worker: Worker, entry: _Entry, overdue_s: float) -> bool:
        if worker.host not in entry.avoid or overdue_s > ELSEWHERE_S:
            return True
        return all(host in entry.avoid for host in self._hosts)

    def _fresh(self, step: int) -> Key | None:
        if self._exhausted[step]:
            return None
        block = self._scheduler.acquire_block(self._works[step].task.run)
        if block is None:
            return None
        # daisy's own block number is not dense; the grid index is.
        shape = self._works[step].grid.block_shape
        index = (int(b) // s for b, s in zip(block.write_roi.begin, shape, strict=True))
        key = (step, *index)
        self._entries[key] = _Entry(block)
        return key

    def _doubtful(self, worker: Worker, step: int) -> Key | None:
        """Return a running block of another worker that takes unusually long."""
        if not self._works[step].task.speculate:
            return None
        oldest = None
        for holder, key, _ in self._attempts[step].begun_before(
            self._clock() - self.times[step].unusual_s
        ):
            if len(self._entries[key].holders) == 1 and holder != worker:
                if holder.host != worker.host:
                    return key
                oldest = oldest or key
        return oldest

    def _hold(self, worker: Worker, key: Key) -> None:
        self._waiting[key[0]].discard(key)
        now = self._entries[key].holders[worker] = self._clock()
        self._attempts[key[0]].begin(worker, key, now)

    def _release(self, worker: Worker, key: Key) -> None:
        del self._entries[key].holders[worker]
        self._attempts[key[0]].end(worker, key)

    def _again(self, key: Key, pause: float) -> None:
        if not self._entries[key].holders:  # otherwise another worker still has it
            self._waiting[key[0]].add(key, self._clock() + pause)

    def _finish(self, key: Key, entry: _Entry, status: daisy.BlockStatus) -> None:
        for worker in list(entry.holders):
            self._release(worker, key)
        self._waiting[key[0]].discard(key)
        del self._entries[key]
        entry.block.status = status
        self._scheduler.release_block(entry.block)

    def _is_done(self, step: int) -> bool:
        if not self._exhausted[step]:
            state = self._scheduler.task_states[self._works[step].task.run]
            # daisy counts masked blocks only when it comes to them.
            self._exhausted[step] = state.is_done()
            if self._exhausted[step]:  # its own count of orphans has blocks that are not to do
                progress, todo = self.progress[step], int(self._works[step].todo.sum())
                progress.orphaned = todo - progress.done - progress.failed
        return self._exhausted[step]


def _daisy_task(work: Work) -> daisy.Task:
    task, grid = work.task, work.grid
    origin = daisy.Coordinate(0, 0, 0)
    context = daisy.Coordinate(task.read_context())
    write = daisy.Roi(origin, grid.block_shape)
    return daisy.Task(
        task_id=task.run,
        # The total of all reads: the first block writes from the origin on.
        total_roi=daisy.Roi(origin, grid.volume_shape).grow(context, context),
        read_roi=write.grow(context, context),
        write_roi=write,
        process_function=None,
        read_write_conflict=False,
        fit="shrink",
        max_workers=1,
        max_retries=0,  # attempts are counted here
        skip_mask=~work.todo,
    )
