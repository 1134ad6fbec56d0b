"""Who works on a run, written to the database; the only writer of its collection ``workers``."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from em_blocks.db.runs import WORKING, RunStore
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
        Place of the scheduler's that it was started for; empty if it came by itself.
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
        """The worker that said hello."""
        return cls(
            Worker(name, str(hello.get("host"))[:100]), int(hello.get("pid", 0)),
            str(hello.get("device"))[:100], str(hello.get("slot", ""))[:100],
        )


class Roster:
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
        """Somebody left: until the database knows, commits of that worker count."""
        self._vacated: set[str] = set()
        self.runs = [store.run for store in stores]
        self._hosts: dict[str, float] = {}
        self._slots: set[str] = set()
        self._asked: float | None = None
        self._answered_late = -math.inf
        self.unproductive = 0
        """Workers in a row that were lost before they finished a block."""

    # -- told by the gateway, which must not wait ---------------------------------------------

    def joined(self, member: Member) -> None:
        """A worker is there."""
        with self._lock:
            self._members[member.worker.name] = member
            self._slots.add(member.slot)
            if member.slot:  # one that came by itself may be on a host that is none of the cluster's
                self._hosts.setdefault(member.worker.host, -math.inf)

    @property
    def anybody(self) -> bool:
        """Whether any worker has come so far."""
        return bool(self._slots)

    def ended(self, slot: str) -> None:
        """The process of a slot is gone."""
        with self._lock:
            if slot not in self._slots:  # it never came so far as to say hello
                self.unproductive += 1

    def unsafe_hosts(self, used: set[str]) -> set[str]:
        """Hosts that lost a worker of late, and that none of `used` is: no place for the next one.

        None, if that were all that are known: the next worker must go somewhere.
        """
        with self._lock:
            now = time.monotonic()
            lost = {host for host, when in self._hosts.items() if now - when < UNSAFE_S} - used
            return lost if lost != set(self._hosts) else set()

    def holds(self, member: Member, keys: list[Key]) -> None:
        """What a worker has in work now."""
        with self._lock:
            member.blocks, member.changed = keys, True

    def left(self, member: Member, state: str, reason: str) -> None:
        """A worker is gone; `state` is left, lost or revoked."""
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
        """Slots whose workers left since the last call, whether or not their processes ended."""
        with self._lock:
            found, self._vacated = self._vacated, set()
            return found

    def lost_block(self, member: Member, key: Key, kind: str, reason: str) -> None:
        """A block was taken from a worker, which cannot record that itself."""
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
        """Whether the database lets us wait, or just did: much is done that it does not know."""
        now, asked = time.monotonic(), self._asked
        return (asked is not None and now - asked > LATE_S) or now - self._answered_late < SETTLE_S

    def ask(self) -> None:
        """The database is being asked something."""
        self._asked = self._asked or time.monotonic()

    def answered(self) -> None:
        """It has answered."""
        if self.database_away:
            self._answered_late = time.monotonic()
        self._asked = None

    def flush(self, *, only_urgent: bool = False) -> None:
        """Write who left and, unless `only_urgent`, how the others stand.

        What the database does not take stays to be written.
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
                    self._members[member.worker.name] = member  # the last that is due again

    def _due(self, only_urgent: bool) -> list[Member]:
        """All who left; of thousands who work a share, those written longest ago."""
        members = self._members.values()
        gone = [m for m in members if m.changed and m.state != WORKING]
        if only_urgent:
            return gone
        share = max(SHARE, math.ceil(len(members) / BEATS))
        return gone + list(itertools.islice((m for m in members if m.state == WORKING), share))

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
