"""A cluster that is simulated around the real dispatcher, event by event.

Workers, network and time are simulated; the scheduler is one server and the database one of several
cores, with the service times that were measured. Which block goes where, the dispatcher decides.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from em_blocks.db.commits import FLUSH_BLOCKS, FLUSH_S
from em_blocks.runtime.protocol.wire import PINGS, Key
from em_blocks.runtime.scheduler.dispatch import Dispatcher, Work, Worker
from em_blocks.runtime.scheduler.server import TICK_S
from em_blocks.runtime.scheduler.watchdog import HEARTBEAT_S
from em_blocks.runtime.scheduler.worker_registry import BEATS, SHARE
from parts.cluster_costs import TIMEOUT_S, Costs

NETWORK_S = 2e-4
WORKERS_PER_HOST = 8
REPLACED_S = 60.0
FULL = 0.98


@dataclass(frozen=True)
class Cluster:
    """The cluster that is simulated.

    Attributes
    ----------
    workers : int
    block_s : float
        Mean seconds of a block. They vary by 30 %, and one in a hundred takes three times as long.
    losses_per_hour : float
        Share of the workers that is lost within an hour; each is replaced a minute later.
    failures : float
        Share of attempts that fail.
    db_cores : int
    """

    workers: int
    block_s: float
    losses_per_hour: float = 0.1
    failures: float = 0.001
    db_cores: int = 2


@dataclass(frozen=True)
class Outcome:
    """Result of a run, between a fifth and four fifths of all blocks.

    Attributes
    ----------
    blocks : int
        Done, in the whole simulation.
    seconds : float
        Simulated, of the whole.
    rate : float
        Blocks per second.
    scheduler, database : float
        Share of their time in which they work.
    wait_s : float
        Mean time from asking for a block to having it.
    efficiency : float
        Share of the workers' time that went into blocks.
    lost : int
        Workers, in the whole simulation.
    """

    blocks: int
    seconds: float
    rate: float
    scheduler: float
    database: float
    wait_s: float
    efficiency: float
    lost: int


class _Server:
    """Serves in the order of arrival; a share of its time is taken by what goes on anyway."""

    def __init__(self, cores: int, background: float):
        self.background = min(background, FULL)
        self._slower = 1 / (1 - self.background)
        self._free = [0.0] * cores
        self.busy_s = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """When something that comes now, and takes so long, is done."""
        end = max(now, heapq.heappop(self._free)) + seconds * self._slower
        heapq.heappush(self._free, end)
        self.busy_s += seconds
        return end

    def utilisation(self, busy_s: float, seconds: float) -> float:
        return min(1.0, self.background + busy_s / seconds / len(self._free))


@dataclass(eq=False)
class _Simulated:
    worker: Worker
    asked: float = 0.0
    alive: bool = True
    listed: bool = True
    admitted: bool = False
    writing: bool = False
    unwritten: list[Key] = field(default_factory=list)


class Simulation:
    """One run of a cluster.

    Parameters
    ----------
    work : Work
        Its blocks.
    cluster : Cluster
    costs : Costs
    """

    def __init__(self, work: Work, cluster: Cluster, costs: Costs):
        self._cluster, self._costs = cluster, costs
        self._n_blocks = int(work.todo.sum())
        self._events: list[tuple[float, int, Callable, tuple]] = []
        self._count = itertools.count()
        self._now = 0.0
        self._rng = np.random.default_rng(0)
        self._times = iter(())
        self._dispatcher = Dispatcher([work], clock=lambda: self._now)
        n = cluster.workers
        written = min(n, max(SHARE, n / BEATS)) / HEARTBEAT_S
        self._scheduler = _Server(1, n * PINGS / TIMEOUT_S * costs.ping + written * costs.listed)
        self._database = _Server(cluster.db_cores, written * costs.db_listed / cluster.db_cores)
        self._waiting: deque[_Simulated] = deque()
        self._done = self._lost = 0
        self._work_s = self._wait_s = 0.0
        self._marks: list[tuple] = []

    def run(self) -> Outcome:
        """Until all blocks are done."""
        with self._dispatcher:
            for n in range(self._cluster.workers):
                self._at(0.0, self._join, n)
            self._at(TICK_S, self._tick)
            while self._events and not self._dispatcher.finished:
                self._now, _, event, given = heapq.heappop(self._events)
                event(*given)
        return self._outcome()

    def _at(self, when: float, event: Callable, *given) -> None:
        heapq.heappush(self._events, (when, next(self._count), event, given))

    def _tell(self, sent: float, seconds: float, event: Callable, *given) -> None:
        """A message on its way to the scheduler, which takes so long over it."""
        self._at(sent + NETWORK_S, self._arrive, seconds, event, given)

    def _arrive(self, seconds: float, event: Callable, given: tuple) -> None:
        self._at(self._scheduler.serve(self._now, seconds), event, *given)

    # -- workers ------------------------------------------------------------------------

    def _join(self, number: int) -> None:
        host = f"host{number % self._cluster.workers // WORKERS_PER_HOST}"
        one = _Simulated(Worker(f"{host}-{number}", host), asked=self._now)
        self._tell(self._now, self._costs.join, self._joined, one)
        if self._cluster.losses_per_hour:
            mean_s = 3600 / self._cluster.losses_per_hour
            self._at(self._now + self._rng.exponential(mean_s), self._die, one, number)

    def _joined(self, one: _Simulated) -> None:
        self._dispatcher.join(one.worker)
        self._want(one)

    def _die(self, one: _Simulated, number: int) -> None:
        one.alive = False
        self._lost += 1
        self._at(self._now + TIMEOUT_S, self._leave, one)
        self._at(self._now + REPLACED_S, self._join, number + self._cluster.workers)

    def _leave(self, one: _Simulated) -> None:
        one.listed = False
        self._dispatcher.leave(one.worker, blame=False)
        self._hand_out()

    def _begin(self, one: _Simulated, key: Key) -> None:
        if not one.alive:
            return
        self._wait_s += self._now - one.asked
        seconds = self._block_s()
        self._at(self._now + seconds, self._end, one, key, seconds)

    def _end(self, one: _Simulated, key: Key, seconds: float) -> None:
        """A block is finished: the next is asked for while this one is committed."""
        if not one.alive:
            return
        self._work_s += seconds
        half = self._costs.block / 2
        one.asked = self._now
        self._tell(self._now, half, self._want, one)
        if self._rng.random() < self._cluster.failures:
            self._tell(self._now, half, self._failed, one, key)
            return
        one.unwritten.append(key)
        if not one.writing:
            one.writing = True
            self._at(self._now + FLUSH_S, self._commit, one)

    def _commit(self, one: _Simulated) -> None:
        """One commit at a time: what ends meanwhile is in the next, so a slow database has fewer."""
        keys, one.unwritten = one.unwritten[:FLUSH_BLOCKS], one.unwritten[FLUSH_BLOCKS:]
        if not one.listed:
            return  # refused
        cost = self._costs.db_commit + len(keys) * self._costs.db_block
        durable = self._database.serve(self._now, cost) + self._costs.latency
        self._at(durable, self._durable, one, keys)

    def _durable(self, one: _Simulated, keys: list[Key]) -> None:
        self._tell(self._now, self._costs.block / 2 * len(keys), self._recorded, one, keys)
        one.writing = bool(one.unwritten)
        if one.writing:
            self._at(self._now + FLUSH_S, self._commit, one)

    # -- the scheduler --------------------------------------------------------------------

    def _want(self, one: _Simulated) -> None:
        self._waiting.append(one)
        self._hand_out()

    def _recorded(self, one: _Simulated, keys: list[Key]) -> None:
        for key in keys:
            self._dispatcher.done(one.worker, key)
        self._done += len(keys)
        if self._done * 5 >= self._n_blocks * (1 if not self._marks else 4) and len(self._marks) < 2:
            self._marks.append((
                self._now, self._done, self._scheduler.busy_s, self._database.busy_s,
                self._wait_s, self._work_s,
            ))
        self._hand_out()

    def _failed(self, one: _Simulated, key: Key) -> None:
        if one.listed:
            self._dispatcher.failed(one.worker, key)

    def _tick(self) -> None:
        self._dispatcher.overdue()
        self._hand_out()
        self._at(self._now + TICK_S, self._tick)

    def _hand_out(self) -> None:
        while self._waiting:
            one = self._waiting[0]
            key = self._dispatcher.take(one.worker) if one.listed else None
            if key is None and one.listed:
                self._waiting.rotate(-1)
                return
            self._waiting.popleft()
            if key is not None:
                self._at(self._given(one) + NETWORK_S, self._begin, one, key)

    def _given(self, one: _Simulated) -> float:
        """When a block leaves: the database must list its worker before."""
        if one.admitted:
            return self._now
        one.admitted = True
        return self._database.serve(self._now, self._costs.db_join) + self._costs.latency

    def _block_s(self) -> float:
        seconds = next(self._times, None)
        if seconds is None:
            many = self._rng.lognormal(0.0, 0.3, 10_000)
            many[self._rng.random(many.size) < 0.01] *= 3
            self._times = iter((many * self._cluster.block_s / (1.02 * np.exp(0.045))).tolist())
            seconds = next(self._times)
        return seconds

    def _outcome(self) -> Outcome:
        (at, done, scheduler, database, wait, work), late = self._marks
        seconds, blocks = late[0] - at, late[1] - done
        return Outcome(
            blocks=self._done, seconds=self._now, rate=blocks / seconds,
            scheduler=self._scheduler.utilisation(late[2] - scheduler, seconds),
            database=self._database.utilisation(late[3] - database, seconds),
            wait_s=(late[4] - wait) / blocks,
            efficiency=(late[5] - work) / seconds / self._cluster.workers, lost=self._lost,
        )
