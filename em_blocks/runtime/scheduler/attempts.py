"""Books on the blocks in work, in which nothing takes longer because there are more workers."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from em_blocks.runtime.protocol.wire import Key


@dataclass(frozen=True)
class Worker:
    """Who asks for blocks. Workers are compared by name."""

    name: str
    host: str = field(compare=False)


class Attempts:
    """Who works on which blocks of one step."""

    def __init__(self) -> None:
        # The oldest is first, because clocks do not go back.
        self._since: dict[tuple[Worker, Key], float] = {}
        self._keys: dict[Worker, set[Key]] = {}

    def __bool__(self) -> bool:
        return bool(self._since)

    def __contains__(self, worker: Worker) -> bool:
        return worker in self._keys

    def begin(self, worker: Worker, key: Key, now: float) -> None:
        """A worker has been given a block."""
        self._since[worker, key] = now
        self._keys.setdefault(worker, set()).add(key)

    def end(self, worker: Worker, key: Key) -> None:
        """A worker does not have it any more."""
        del self._since[worker, key]
        keys = self._keys[worker]
        keys.remove(key)
        if not keys:
            del self._keys[worker]

    def of(self, worker: Worker) -> list[Key]:
        """The blocks that a worker has."""
        return list(self._keys.get(worker, ()))

    def begun_before(self, moment: float) -> Iterator[tuple[Worker, Key, float]]:
        """Attempts that began earlier, with when they did; the oldest first."""
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
        """A block waits until `due`."""
        self._due[key] = due
        heapq.heappush(self._pauses, (due, key))

    def discard(self, key: Key) -> None:
        """It does not wait any more, if it did."""
        self._due.pop(key, None)
        self._ready.pop(key, None)

    def ready(self, now: float) -> Iterator[tuple[Key, float]]:
        """Blocks whose pause is over, with when it was."""
        while self._pauses and self._pauses[0][0] <= now:
            due, key = heapq.heappop(self._pauses)
            if self._due.get(key) == due:  # or else it was discarded, and may wait anew
                self._ready[key] = due
        yield from self._ready.items()
