"""Measure what workers cost the scheduler and the database.

Costs are CPU seconds of the gateway's thread, of the scheduler's other threads, and of mongod: what
other processes of a busy machine take does not count, and neither does what workers do themselves.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from em_blocks.db.commits import CommitWriter, WorkerIdentity
from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import RunStore
from em_blocks.runtime.protocol.wire import new_secret
from em_blocks.runtime.scheduler.dispatch import Dispatcher, Work, Worker
from em_blocks.runtime.scheduler.gateway import Gateway
from em_blocks.runtime.scheduler.worker_registry import Member, WorkerRegistry
from em_blocks.tasks.base import BlockReport
from parts.noop import Noop
from parts.swarm import swarm

TIMEOUT_S = 30.0
WRITERS, MEMBERS = 16, 1000


@dataclass(frozen=True)
class Costs:
    """CPU seconds each.

    Attributes
    ----------
    join, block, ping : float
        Of the scheduler, for a worker that comes, a block handed out and reported, a ping answered.
    listed : float
        Of the scheduler, for a worker's document that is brought up to date.
    db_join, db_listed : float
        Of mongod, for a worker that comes, and for its document.
    db_commit, db_block : float
        Of mongod, for a durable commit, and for every block in it.
    latency : float
        Seconds from a commit to its confirmation beyond mongod's CPU time: the journal.
    """

    join: float
    block: float
    ping: float
    listed: float
    db_join: float
    db_listed: float
    db_commit: float
    db_block: float
    latency: float


def noop(folder: Path, n_blocks=(100, 100, 100)) -> Noop:
    """A task of 10^6 empty blocks."""
    return Noop(
        run="cluster", run_dir=folder, block_shape=(32, 64, 64), n_blocks=n_blocks, num_workers=100_000
    )


def work(task: Noop) -> Work:
    """Return all of its blocks."""
    grid = task.grid()
    return Work(task, grid, np.ones(grid.shape, bool))


def measure(folder: Path, *, connections: int, seconds: float) -> Costs:
    """Costs by the real gateway, with so many real connections, and by a private mongod."""
    join, ping = _pings(folder, connections, seconds)
    return Costs(
        join=join, ping=ping, block=max(_blocks(folder, n, seconds) for n in (100, connections)),
        **_database(folder),
    )


# -- the gateway ------------------------------------------------------------------------------


class _NoStore:
    """Takes what the registry writes: the database is measured by itself."""

    run = "cluster"

    def admit_worker(self, document: dict) -> None: ...
    def update_workers(self, documents: list[dict]) -> None: ...
    def record_loss(self, *record) -> None: ...


class _Serving:
    """A gateway, and what its thread has taken of a core."""

    def __init__(self, folder: Path):
        self.secret = new_secret()
        self.gateway = Gateway(
            Dispatcher([work(noop(folder, (200, 200, 200)))]), WorkerRegistry([_NoStore()], [1]),
            host="127.0.0.1", port=0, secret=self.secret, timeout_s=TIMEOUT_S,
            on_event=lambda event: None,
        )

    def __enter__(self):
        before = set(threading.enumerate())
        self.gateway.__enter__()
        (thread,) = (t for t in set(threading.enumerate()) - before if t.name == "gateway")
        self._clock = time.pthread_getcpuclockid(thread.ident)
        return self

    def __exit__(self, *exc) -> None:
        self.gateway.close()

    def cpu(self) -> float:
        return time.clock_gettime(self._clock)

    def swarm(self, n: int, **options):
        return swarm(self.gateway.address, self.secret, n, **options)


def _pings(folder: Path, n: int, seconds: float) -> tuple[float, float]:
    """Seconds for a worker that joins, and for a ping."""
    with _Serving(folder) as serving:
        start = serving.cpu()
        with serving.swarm(n, ping_s=TIMEOUT_S / 10) as counts:
            joined = (serving.cpu() - start) / n
            return joined, _per_count(serving, counts, "pongs", seconds)


def _blocks(folder: Path, n: int, seconds: float) -> float:
    """Seconds for a block, with so many workers that are done at once."""
    with _Serving(folder) as serving, serving.swarm(n, works=True) as counts:
        return _per_count(serving, counts, "done", seconds)


def _per_count(serving: _Serving, counts, name: str, seconds: float) -> float:
    time.sleep(seconds / 4)  # until all are in step
    before, start = counts()[name], serving.cpu()
    time.sleep(seconds)
    after, end = counts()[name], serving.cpu()
    return (end - start) / max(after - before, 1)


# -- the database -----------------------------------------------------------------------------


def _database(folder: Path) -> dict[str, float]:
    task = noop(folder)
    with database_uri(None, folder) as uri, connect(uri) as client:
        server = psutil.Process(json.loads((folder / "db/server.json").read_text())["pid"])
        store = RunStore(client, task.db_name, task.run)
        store.prepare()
        store.create({}, epoch=0)
        epoch = store.take_lease("benchmark")
        registry = WorkerRegistry([store], [epoch])
        members = [_member(n) for n in range(MEMBERS)]
        with _Cpu(server) as joining, ThreadPoolExecutor(6) as pool:  # as many as asyncio has at least
            list(pool.map(lambda member: _admit(registry, member), members))
        registry.flush()
        with _Cpu(server) as listing:
            for _ in range(3):
                registry.flush()
        single, latency = _commits(store, task, epoch, members, server, size=1)
        many, _ = _commits(store, task, epoch, members, server, size=33)
    per_block = max(0.0, (many - single) / 32)
    return {
        "db_join": joining.server / MEMBERS, "db_listed": listing.server / 3 / MEMBERS,
        "listed": listing.own / 3 / MEMBERS, "db_commit": max(0.0, single - per_block),
        "db_block": per_block, "latency": latency,
    }


class _Cpu:
    """CPU seconds of mongod and of this process while it is entered."""

    def __init__(self, server: psutil.Process):
        self._server = server

    def __enter__(self) -> _Cpu:
        self.server, self.own = -self._of_server(), -time.process_time()
        return self

    def __exit__(self, *exc) -> None:
        self.server += self._of_server()
        self.own += time.process_time()

    def _of_server(self) -> float:
        times = self._server.cpu_times()
        return times.user + times.system


def _member(n: int) -> Member:
    return Member(Worker(f"host{n // 8}-{n}-beef", f"host{n // 8}"), n, "cpu", f"{n}.1")


def _admit(registry: WorkerRegistry, member: Member) -> None:
    registry.joined(member)
    registry.admit(member, 0)
    registry.holds(member, [(0, 12, 34, 56)])


def _commits(store, task, epoch, members, server, *, size: int) -> tuple[float, float]:
    """mongod's seconds for a commit of `size` blocks while many commit; latency beyond them."""
    grid, rounds, waits = task.grid(), max(2, 60 // size), []

    def commit(number: int) -> None:
        durable = threading.Event()
        writer = CommitWriter(
            store, grid, WorkerIdentity(members[number].worker.name, epoch, "cpu"), max_failures=3,
            outage_s=60, on_durable=lambda blocks: durable.set(),
        )
        report = BlockReport(
            seconds={"read": 0.1, "compute": 1.0, "write": 0.1}, counts={"n": 1}, checksums={"out": 1}
        )
        for n in range(rounds):
            for m in range(size):
                writer.done(grid.block((number, n, m + size % 2)), time.time(), report)
            start = time.perf_counter()
            writer.hurry()
            durable.wait(60)
            durable.clear()
            waits.append(time.perf_counter() - start)
        writer.close()

    with _Cpu(server) as committing, ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(commit, range(WRITERS)))
    cost = committing.server / (WRITERS * rounds)
    return cost, max(0.0, float(np.min(waits)) - cost)
