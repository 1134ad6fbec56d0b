"""The workers of a run, written to the database; the only writer of its collection ``workers``."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from em_blocks.db.leases import WORKING
from em_blocks.db.runs import RunStore
from em_blocks.runtime.protocol.wire import Key
from em_blocks.runtime.scheduler.dispatch import Worker

UNSAFE_S = 120.0
LATE_S, SETTLE_S = 3.0, 10.0
# Beats in which each of very many workers is written once: before its heartbeat looks old.
SHARE, BEATS = 1000, 5


@dataclass(eq=False)
class Member:
    """A worker and what it has done.

    Attributes
    ----------
    slot : str
        The launcher's name for its place; empty if it joined by itself.
    """

    worker: Worker
    pid: int
    device: str
    slot: str
    done: int = 0
    failed: int = 0
    steps: set[int] = field(default_factory=set)
    blocks: list[Key] = field(default_factory=list)
    state: str = WORKING
    reason: str | None = None
    changed: bool = False

    @classmethod
    def of(cls, hello: dict, name: str) -> Member:
        """Return the worker that sent a hello."""
        return cls(
            Worker(name, str(hello.get("host"))[:100]), int(hello.get("pid", 0)),
            str(hello.get("device"))[:100], str(hello.get("slot", ""))[:100],
        )


class WorkerRegistry:
    """The workers of some steps, for the database.

    Parameters
    ----------
    stores : sequence of RunStore
        One for each step.
    epochs : sequence of int
    """

    def __init__(self, stores: Sequence[RunStore], epochs: Sequence[int]):
        self._stores, self._epochs = stores, epochs
        self._members: dict[str, Member] = {}
        self._losses: list[tuple[Member, Key, str, str]] = []
        self._lock = threading.Lock()
        self.urgent = threading.Event()
        """Set when a worker left: until the database knows, its commits count."""
        self._vacated: set[str] = set()
        self.runs = [store.run for store in stores]
        self._hosts: dict[str, float] = {}
        self._slots: set[str] = set()
        self._asked: float | None = None
        self._answered_late = -math.inf
        self.unproductive = 0
        """Workers in a row that were lost before they finished a block."""

    # -- called by the gateway, which must not wait ---------------------------------------------

    def joined(self, member: Member) -> None:
        """Add a worker that has connected."""
        with self._lock:
            self._members[member.worker.name] = member
            self._slots.add(member.slot)
            if member.slot:  # one that joined by itself may be on a host outside of the cluster
                self._hosts.setdefault(member.worker.host, -math.inf)

    @property
    def any_joined(self) -> bool:
        """Whether any worker has connected so far."""
        return bool(self._slots)

    def ended(self, slot: str) -> None:
        """Note that the process of a slot has ended."""
        with self._lock:
            if slot not in self._slots:  # it never said hello
                self.unproductive += 1

    def unsafe_hosts(self, used: set[str]) -> set[str]:
        """Return hosts to avoid for the next worker: they recently lost one, and are not in `used`.

        Empty if that would exclude every known host.
        """
        with self._lock:
            now = time.monotonic()
            lost = {host for host, when in self._hosts.items() if now - when < UNSAFE_S} - used
            return lost if lost != set(self._hosts) else set()

    def holds(self, member: Member, keys: list[Key]) -> None:
        """Note the blocks that a worker has now."""
        with self._lock:
            member.blocks, member.changed = keys, True

    def left(self, member: Member, state: str, reason: str) -> None:
        """Note that a worker disconnected; `state` is left, lost or revoked."""
        with self._lock:
            member.state, member.reason, member.blocks, member.changed = state, reason, [], True
            if state != "left" and member.slot:
                self._hosts[member.worker.host] = time.monotonic()
            self._vacated.add(member.slot)
            if member.done:
                self.unproductive = 0
            elif state == "lost":
                self.unproductive += 1
        self.urgent.set()

    def vacated(self) -> set[str]:
        """Return slots whose workers left since the last call, whether or not their processes ended."""
        with self._lock:
            found, self._vacated = self._vacated, set()
            return found

    def lost_block(self, member: Member, key: Key, kind: str, reason: str) -> None:
        """Note that a block was taken from a worker, which cannot record that itself."""
        with self._lock:
            self._losses.append((member, key, kind, reason))

    # -- called by threads that may wait for the database ---------------------------------------

    def admit(self, member: Member, step: int) -> None:
        """List a worker as working on a step: from now on its commits count."""
        self._stores[step].admit_worker(self._document(member, step))
        with self._lock:
            member.steps.add(step)
            # It may have left meanwhile, and been written and forgotten as one without this step.
            member.changed = True
            self._members[member.worker.name] = member

    @property
    def database_away(self) -> bool:
        """Whether the database is slow to answer, or just was: it may not know of many done blocks."""
        now, asked = time.monotonic(), self._asked
        return (asked is not None and now - asked > LATE_S) or now - self._answered_late < SETTLE_S

    def ask(self) -> None:
        """Note that a question to the database begins."""
        self._asked = self._asked or time.monotonic()

    def answered(self) -> None:
        """Note that the database has answered."""
        if self.database_away:
            self._answered_late = time.monotonic()
        self._asked = None

    def flush(self, *, only_urgent: bool = False) -> None:
        """Write which workers left and, unless `only_urgent`, the state of the others.

        Documents that the database does not take are written by the next call.
        """
        self.urgent.clear()
        with self._lock:
            members = self._due(only_urgent)
            for member in members:
                member.changed = False
            losses, self._losses = self._losses, []
        try:
            self._write(members)
            for loss in losses:
                self._write_loss(*loss)
        except Exception:
            with self._lock:
                self._losses = losses + self._losses
                for member in members:
                    member.changed = True
            raise
        with self._lock:
            for member in members:
                self._members.pop(member.worker.name, None)
                if member.state == WORKING or member.changed:
                    self._members[member.worker.name] = member  # last in the order of what is due

    def _due(self, only_urgent: bool) -> list[Member]:
        """Return all that left; of thousands that work a share, those written longest ago."""
        members = self._members.values()
        left = [m for m in members if m.changed and m.state != WORKING]
        if only_urgent:
            return left
        share = max(SHARE, math.ceil(len(members) / BEATS))
        return left + list(itertools.islice((m for m in members if m.state == WORKING), share))

    def _write(self, members: list[Member]) -> None:
        for step, store in enumerate(self._stores):
            here = [self._document(m, step) for m in members if step in m.steps]
            if here:
                store.update_workers(here)

    def _write_loss(self, member: Member, key: Key, kind: str, reason: str) -> None:
        self._stores[key[0]].record_loss(
            "/".join(map(str, key[1:])), self._document(member, key[0]),
            {"type": kind, "message": reason, "stage": None, "traceback": None},
        )

    def _document(self, member: Member, step: int) -> dict:
        return {
            "worker": member.worker.name, "epoch": self._epochs[step], "host": member.worker.host,
            "pid": member.pid, "device": member.device, "slot": member.slot, "state": member.state,
            "reason": member.reason, "done": member.done, "failed": member.failed,
            "blocks": ["/".join(map(str, key[1:])) for key in member.blocks if key[0] == step],
        }
