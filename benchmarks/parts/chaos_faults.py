"""The faults of a chaos campaign: each hits something alive, or does not count."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from cluster.slots import CONTROLLER, NODES
from parts.chaos_places import Cluster, Local, signalled, thawed

MEAN_PAUSE_S = 3.0
LEFT_BYTES = (0, 0, 20 << 20, 50 << 20)
"""What is left free on a full disk: nothing, too little for mongod, too little for the scheduler."""


@dataclass
class Wound:
    """A fault that hit.

    Attributes
    ----------
    victim : str
    seconds : float
        Until `heal` is to be called.
    heal : function, optional
        Ends the fault.
    """

    victim: str
    seconds: float = 0.0
    heal: Callable[[], None] | None = None


# -- faults of any place: each takes the place and a generator, and returns None if it hit nothing --


def kill_worker(place: Local, rng: random.Random) -> Wound | None:
    worker = some_worker(place, rng)
    return Wound(shown(worker)) if worker and signalled(worker, signal.SIGKILL) else None


def freeze_worker(place: Local, rng: random.Random) -> Wound | None:
    return frozen(some_worker(place, rng), rng.uniform(1, 20))


def kill_scheduler(place: Local, rng: random.Random) -> Wound | None:
    """Workers outlive it."""
    scheduler = working_scheduler(place, rng)
    return Wound(shown(scheduler)) if scheduler and signalled(scheduler, signal.SIGKILL) else None


def kill_group(place: Local, rng: random.Random) -> Wound | None:
    """Hit the scheduler and all that it started in its process group, as a closed terminal might."""
    scheduler = working_scheduler(place, rng)
    if scheduler is None:
        return None
    with suppress(ProcessLookupError):
        os.killpg(scheduler.pid, signal.SIGKILL)
        return Wound(f"group {scheduler.pid}")
    return None


def stop_scheduler(place: Local, rng: random.Random) -> Wound | None:
    """SIGTERM: it must end in order. Only while it takes workers: before, it has nothing to end."""
    scheduler = place.scheduler()
    if scheduler is None or not place.at_work(scheduler) or not signalled(scheduler, signal.SIGTERM):
        return None
    place.asked_to_stop = scheduler.pid
    return Wound(shown(scheduler))


def freeze_scheduler(place: Local, rng: random.Random) -> Wound | None:
    return frozen(working_scheduler(place, rng), rng.uniform(2, 8))


def kill_database(place: Local, rng: random.Random) -> Wound | None:
    mongod = place.mongod()
    if mongod is None or not signalled(mongod, signal.SIGKILL):
        return None
    return Wound(shown(mongod), rng.uniform(0, 10), place.restart_database)


def freeze_database(place: Local, rng: random.Random) -> Wound | None:
    return frozen(place.mongod(), rng.uniform(3, 15))


def fill_disk(place: Local, rng: random.Random) -> Wound | None:
    """Fill the small disk of the outputs (and of the embedded database) with one file."""
    filler = place.disk / "filler"
    if working_scheduler(place, rng) is None or not place.disk.is_mount() or filler.exists():
        return None
    left = rng.choice(LEFT_BYTES)
    with open(filler, "wb") as file:
        while (missing := shutil.disk_usage(place.disk).free - left) > 0:
            size = os.fstat(file.fileno()).st_size
            try:
                os.posix_fallocate(file.fileno(), size, missing)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return Wound(f"{left >> 20} MB left", rng.uniform(3, 10), partial(filler.unlink, missing_ok=True))


# -- faults of a cluster ----------------------------------------------------------------------------


def stop_node(place: Cluster, rng: random.Random) -> Wound | None:
    """SIGTERM for a slurmd: its tasks go on as orphans."""
    return down(place, rng, place.slurm.stop_node)


def kill_node(place: Cluster, rng: random.Random) -> Wound | None:
    """kill -9 for all processes of a node."""
    return down(place, rng, place.slurm.kill_node)


def down(place: Cluster, rng: random.Random, end: Callable[[int], None]) -> Wound | None:
    node = busy_node(place, rng)
    if node is None:
        return None
    end(node)
    place.down.add(node)
    return Wound(f"n{node}", rng.uniform(2, 25), partial(revive, place, node))


def revive(place: Cluster, node: int) -> None:
    place.slurm.start_node(node)
    place.down.discard(node)


def cut_worker_link(place: Cluster, rng: random.Random) -> Wound | None:
    node = busy_node(place, rng)
    return None if node is None else cut(place, node, rng.uniform(2, 25))


def cut_scheduler_link(place: Cluster, rng: random.Random) -> Wound | None:
    """Scheduler, database and Slurm's controller are on one side, all nodes on the other."""
    if CONTROLLER in place.cut or not place.workers():
        return None
    return cut(place, CONTROLLER, rng.uniform(2, 15))


def cut(place: Cluster, host: int, seconds: float) -> Wound:
    place.slurm.cut(host)
    place.cut.add(host)
    return Wound(f"host {host}", seconds, partial(join, place, host))


def join(place: Cluster, host: int) -> None:
    place.slurm.heal(host)
    place.cut.discard(host)


def cancel_job(place: Cluster, rng: random.Random) -> Wound | None:
    jobs = [job for job in place.slurm.squeue() if job.state == "R"]
    if not jobs:
        return None
    job = rng.choice(jobs)
    try:
        place.slurm.scancel(job.id)
    except RuntimeError:  # it has just ended
        return None
    return Wound(f"job {job.id} on {job.node}")


# -- helpers ----------------------------------------------------------------------------------------


def working_scheduler(place: Local, rng: random.Random) -> psutil.Process | None:
    """Return the command; seldom before it has workers, or on a busy machine it would never start."""
    return place.scheduler() if place.workers() or rng.random() < 0.1 else None


def some_worker(place: Local, rng: random.Random) -> psutil.Process | None:
    """The older, the likelier: those that have just started have nothing yet that could be lost."""
    found = place.workers()
    if not found:
        return None
    return rng.choices(found, [0.1 + time.time() - worker.create_time() for worker in found])[0]


def busy_node(place: Cluster, rng: random.Random) -> int | None:
    """A node with workers on it that no fault has taken already."""
    nodes = [n for n in NODES if n not in place.down | place.cut and place.workers_on(n)]
    return chosen(rng, nodes)


def frozen(process: psutil.Process | None, seconds: float) -> Wound | None:
    """SIGSTOP now, SIGCONT after `seconds`."""
    if process is None or process.status() == psutil.STATUS_STOPPED:
        return None
    if not signalled(process, signal.SIGSTOP):
        return None
    return Wound(shown(process), seconds, partial(thawed, process))


def chosen(rng: random.Random, found: list):
    return rng.choice(found) if found else None


def shown(process: psutil.Process) -> str:
    return f"pid {process.pid}"


FAULTS: dict[str, tuple[float, Callable]] = {
    "worker killed": (4, kill_worker),
    "worker frozen": (3, freeze_worker),
    "scheduler killed": (0.5, kill_scheduler),
    "scheduler killed with its group": (0.3, kill_group),
    "scheduler asked to stop": (0.7, stop_scheduler),
    "scheduler frozen": (1, freeze_scheduler),
    "mongod killed": (1.5, kill_database),
    "mongod frozen": (1, freeze_database),
    "disk full": (0.6, fill_disk),
}
CLUSTER_FAULTS: dict[str, tuple[float, Callable]] = {
    **FAULTS,
    "slurmd stopped": (0.8, stop_node),
    "node killed": (0.8, kill_node),
    "worker link cut": (2, cut_worker_link),
    "scheduler link cut": (1, cut_scheduler_link),
    "job cancelled": (1.5, cancel_job),
}
"""Weight and function of every kind."""


@dataclass
class Disturber:
    """Hurts a place now and then, and heals it later.

    Parameters
    ----------
    place : Local
    rng : random.Random
    log : Path
        One line of JSON for every fault.
    n_round : int
    """

    place: Local
    rng: random.Random
    log: Path
    n_round: int
    counts: Counter = field(default_factory=Counter)
    _next: float = field(default_factory=time.monotonic)
    _healing: list[tuple[float, Callable]] = field(default_factory=list)

    def __post_init__(self):
        self._table = CLUSTER_FAULTS if isinstance(self.place, Cluster) else FAULTS

    def poll(self, *, hurt: bool) -> None:
        """Heal what is due, and hurt something if it is time for it and `hurt`."""
        now = time.monotonic()
        self._heal([entry for entry in self._healing if entry[0] <= now])
        if hurt and now >= self._next:
            for _ in range(1 if self.rng.random() < 0.8 else 2):
                self._hurt()
            self._next = time.monotonic() + min(10.0, self.rng.expovariate(1 / MEAN_PAUSE_S))

    def heal_all(self) -> None:
        """End all faults now."""
        self._heal(list(self._healing))

    def _hurt(self) -> None:
        """Try one kind. Not the next one if it hits no process: while a command starts there is only the
        scheduler, which would never get to work.
        """
        kind = self.rng.choices(list(self._table), [weight for weight, _ in self._table.values()])[0]
        began = time.time()
        try:
            wound = self._table[kind][1](self.place, self.rng)
        except psutil.NoSuchProcess:
            return  # it ended while it was looked at
        if wound is not None:
            self._record(kind, wound, began)

    def _record(self, kind: str, wound: Wound, began: float) -> None:
        self.counts[kind] += 1
        if wound.heal is not None:
            self._healing.append((time.monotonic() + wound.seconds, wound.heal))
        with open(self.log, "a") as file:
            print(json.dumps({
                "time": began, "round": self.n_round, "place": self.place.name, "fault": kind,
                "victim": wound.victim, "seconds": round(wound.seconds, 1),
            }), file=file)

    def _heal(self, due: list) -> None:
        for entry in due:
            self._healing.remove(entry)
            entry[1]()
