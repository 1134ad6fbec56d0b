"""Bookkeeping of running blocks; every operation is O(1) in the number of workers."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from em_blocks.runtime.protocol.wire import Key


@dataclass(frozen=True)
class Worker:
    """A worker that asks for blocks. Workers are compared by name."""

    name: str
    host: str = field(compare=False)


class Attempts:
    """The running attempts at blocks of one step."""

    def __init__(self) -> None:
        # The oldest is first, because clocks do not go back.
        self._since: dict[tuple[Worker, Key], float] = {}
        self._keys: dict[Worker, set[Key]] = {}

    def __bool__(self) -> bool:
        return bool(self._since)

    def __contains__(self, worker: Worker) -> bool:
        return worker in self._keys

    def begin(self, worker: Worker, key: Key, now: float) -> None:
        """Note that a worker has been given a block."""
        self._since[worker, key] = now
        self._keys.setdefault(worker, set()).add(key)

    def end(self, worker: Worker, key: Key) -> None:
        """Note that a worker no longer has a block."""
        del self._since[worker, key]
        keys = self._keys[worker]
        keys.remove(key)
        if not keys:
            del self._keys[worker]

    def of(self, worker: Worker) -> list[Key]:
        """Return the blocks that a worker has."""
        return list(self._keys.get(worker, ()))

    def begun_before(self, moment: float) -> Iterator[tuple[Worker, Key, float]]:
        """Yield attempts that began before `moment`, with their begin; the oldest first."""
        for (worker, key), since in self._since.items():
            if since >= moment:
                return
            yield worker, key, since


class Waiting:
    """Blocks of one step that wait for another attempt, each until its pause is over."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._pauses: list[tuple[float, Key]] = []
        self._ready: dict[Key, float] = {}

    def __bool__(self) -> bool:
        return bool(self._due)

    def add(self, key: Key, due: float) -> None:
        """Have a block wait until `due`."""
        self._due[key] = due
        heapq.heappush(self._pauses, (due, key))

    def discard(self, key: Key) -> None:
        """Forget a block, if it waits."""
        self._due.pop(key, None)
        self._ready.pop(key, None)

    def ready(self, now: float) -> Iterator[tuple[Key, float]]:
        """Yield blocks whose pause is over, with the end of the pause."""
        while self._pauses and self._pauses[0][0] <= now:
            due, key = heapq.heappop(self._pauses)
            if self._due.get(key) == due:  # otherwise it was discarded, and may wait again
                self._ready[key] = due
        yield from self._ready.items()
