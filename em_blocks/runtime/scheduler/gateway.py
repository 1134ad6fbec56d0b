"""Messages of workers: blocks out, results in.

A worker whose host does not answer for too long is lost: its blocks are requeued, and its late commits
are refused, because the database no longer lists it as working.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager

from em_blocks.db.connect import ServerError
from em_blocks.runtime.protocol.wire import Key
from em_blocks.runtime.scheduler.dispatch import Dispatcher, Worker
from em_blocks.runtime.scheduler.server import Connection, Server
from em_blocks.runtime.scheduler.worker_registry import WorkerRegistry

log = logging.getLogger(__name__)

ADMIT_AGAIN_S = 0.5


class Gateway(Server):
    """Gives blocks to workers over TCP, and takes in what became of them.

    Parameters
    ----------
    dispatcher : Dispatcher
        Used by the gateway's thread only, while it runs.
    registry : WorkerRegistry
        Told about workers; it writes them to the database.
    host, port, secret, timeout_s
        See `Server`.
    on_event : function of a str
        Told in words what a user should know.
    """

    def __init__(
        self, dispatcher: Dispatcher, registry: WorkerRegistry, *, host: str, port: int, secret: str,
        timeout_s: float, on_event: Callable[[str], None],
    ):
        super().__init__(host=host, port=port, secret=secret, timeout_s=timeout_s)
        self._dispatcher, self._registry, self._on_event = dispatcher, registry, on_event
        self._waiting: deque[Connection] = deque()

    # -- called by the scheduler's main thread --------------------------------------------

    def stop(self) -> None:
        """Hand out no further blocks; workers finish those they have."""
        self._loop.call_soon_threadsafe(self._stop)

    def dismiss(self, slot: str, reason: str) -> None:
        """End the worker of a slot whose process has ended, or is about to."""
        self._loop.call_soon_threadsafe(self._dismiss_slot, slot, reason)

    @property
    def n_held(self) -> int:
        """Number of running blocks."""
        return self._dispatcher.n_held

    @property
    def slots(self) -> set[str]:
        """Slots whose workers are connected."""
        return {connection.member.slot for connection in list(self._connections.values())}

    @property
    def hosts_lost(self) -> set[str]:
        """Hosts that the next worker should not be put on."""
        used = {connection.worker.host for connection in list(self._connections.values())}
        return self._registry.unsafe_hosts(used)

    # -- the gateway's thread -------------------------------------------------------------

    def _serving(self) -> AbstractContextManager:
        return self._dispatcher

    @property
    def _accepting(self) -> bool:
        return self._dispatcher.accepting

    def _joined(self, connection: Connection) -> None:
        self._dispatcher.join(connection.worker)
        self._registry.joined(connection.member)

    def _tick(self) -> None:
        if not self._registry.database_away:  # or else blocks that are done wait to be recorded
            self._judge_times()
        self._hand_out(all_waiting=True)
        if self._dispatcher.finished:
            self.finished.set()

    def _part(self) -> None:
        for connection in list(self._connections.values()):
            self._forget(connection, "left", "the run ended")
            connection.send(end="the run ended")
            connection.writer.close()

    def _judge_times(self) -> None:
        for worker, key in self._dispatcher.overdue():
            self._time_out(worker, key)
        for worker, key, seconds in self._dispatcher.stragglers():
            self._on_event(
                f"{self._name(key)} has been running for {seconds:.0f} s on {worker.host}, usual are "
                f"{self._dispatcher.times[key[0]].median:.1f} s."
            )

    def _take_in(self, connection: Connection, message: dict) -> None:
        if connection.closed:
            return
        if "ping" in message:
            connection.send(pong=message["ping"])
        if "want" in message:
            self._waiting.append(connection)
            self._hand_out()
        if "done" in message:
            keys = [self._key(given) for given in message["done"]]
            connection.member.done += len(keys)
            for key in keys:
                self._dispatcher.done(connection.worker, key)
            self._after(connection)
        if "failed" in message:
            connection.member.failed += 1
            self._dispatcher.failed(connection.worker, self._key(message["failed"]))
            self._after(connection)
        if "bye" in message:
            if message.get("too_long"):
                self._give_up_blocks(connection, str(message["bye"])[:300])
            state = "lost" if message.get("fault") else "left"
            self._lose(connection, str(message["bye"])[:300], blame=False, state=state)

    def _key(self, given: list) -> Key:
        key = tuple(int(number) for number in given)
        if len(key) != 4 or not 0 <= key[0] < len(self._dispatcher.progress):
            raise ValueError(f"no block: {given!r:.100}")
        return key

    def _after(self, connection: Connection) -> None:
        self._registry.holds(connection.member, self._dispatcher.held_by(connection.worker))
        self._hand_out()
        if self._dispatcher.finished:
            self.finished.set()

    def _hand_out(self, *, all_waiting: bool = False) -> None:
        """Give blocks to waiting workers, in turn.

        Where the first gets none, the others most likely do not either: `all_waiting` are asked only
        now and then, and only if that may make a difference. Thousands may wait.
        """
        for _ in range(len(self._waiting)):
            connection = self._waiting.popleft()
            if connection.closed:
                continue
            key = self._dispatcher.take(connection.worker)
            if key is None:
                if not self._dispatcher.accepting:
                    connection.send(end="the run takes no more blocks")
                    continue
                self._waiting.append(connection)
                if not all_waiting or not self._dispatcher.choosy:
                    return
                continue
            self._give(connection, key)

    def _give(self, connection: Connection, key: Key) -> None:
        self._registry.holds(connection.member, self._dispatcher.held_by(connection.worker))
        if key[0] in connection.admitted:
            connection.send(block=key)
            return
        # The database must list it before its first commit.
        self._spawn(self._admit(connection, key), vital=True)

    async def _admit(self, connection: Connection, key: Key) -> None:
        while not connection.closed:
            try:
                await self._loop.run_in_executor(
                    None, self._registry.admit, connection.member, key[0]
                )
            except ServerError as error:  # the watchdog decides for how long
                log.warning("%s waits to be admitted: %s", connection.worker.name, error)
                await asyncio.sleep(ADMIT_AGAIN_S)
            else:
                connection.admitted.add(key[0])
                connection.send(block=key)
                return

    # -- ends of workers ------------------------------------------------------------------

    def _time_out(self, worker: Worker, key: Key) -> None:
        connection = self._connections.get(worker.name)
        limit = self._dispatcher.times[key[0]].limit(0)
        reason = f"{self._name(key)} took longer than its limit (from {limit:.0f} s on)"
        self._dispatcher.timed_out(worker, key)
        if connection is not None:
            self._registry.lost_block(connection.member, key, "BlockTimeout", reason)
            self._lose(connection, reason, blame=False, state="revoked")

    def _give_up_blocks(self, connection: Connection, reason: str) -> None:
        """Charge a timed-out attempt to each block of a worker; any other one would time out too."""
        for key in self._dispatcher.held_by(connection.worker):
            self._registry.lost_block(connection.member, key, "BlockTimeout", reason)
            self._dispatcher.timed_out(connection.worker, key)

    def _dismiss_slot(self, slot: str, reason: str) -> None:
        for connection in list(self._connections.values()):
            if connection.member.slot == slot:
                self._lose(connection, reason, blame=False, state="revoked")

    def _lose(
        self, connection: Connection, reason: str, *, blame: bool, state: str = "lost"
    ) -> None:
        """Requeue what a worker held, and have its commits refused."""
        if connection.closed:
            return
        connection.send(end=reason)
        connection.writer.close()
        held = self._forget(connection, state, reason, blame=blame)
        for key in held if state == "lost" else ():
            self._registry.lost_block(connection.member, key, "WorkerLost", reason)
        if state != "left" or held:
            self._on_event(
                f"Worker {connection.worker.name} disconnected ({reason}); {len(held)} blocks requeued."
            )
        self._hand_out()

    def _forget(
        self, connection: Connection, state: str, reason: str, *, blame: bool = False
    ) -> list[Key]:
        connection.closed = True
        self._connections.pop(connection.worker.name, None)
        held = self._dispatcher.leave(connection.worker, blame=blame)
        self._registry.left(connection.member, state, reason)
        return held

    def _stop(self) -> None:
        self._dispatcher.stop()
        self._hand_out(all_waiting=True)
        if self._dispatcher.finished:
            self.finished.set()

    def _name(self, key: Key) -> str:
        return f"Block {'/'.join(map(str, key[1:]))} of {self._registry.runs[key[0]]}"
