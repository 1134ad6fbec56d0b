"""The door between the scheduler and its workers: proof of the secret, blocks out, results in.

One asyncio loop in a thread of its own. A worker that has not shown the secret gets no word but
the nonce; one whose host does not answer for too long is lost: what it held goes to others, and its late
commits are refused, because the database no longer lists it as working.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from em_blocks.db.connect import ServerError
from em_blocks.errors import ConfigError
from em_blocks.runtime.protocol.liveness import probe
from em_blocks.runtime.protocol.wire import (
    LINE_BYTES,
    PINGS,
    Key,
    decode,
    encode,
    new_secret,
    proof,
    proven,
)
from em_blocks.runtime.scheduler.dispatch import Dispatcher, Worker
from em_blocks.runtime.scheduler.roster import Member, Roster

log = logging.getLogger(__name__)

HELLO_S = 10.0
TICK_S = 0.25
ADMIT_AGAIN_S = 0.5
NAME_LENGTH = 200


@dataclass(eq=False)
class _Connection:
    """One worker that has shown the secret."""

    member: Member
    writer: asyncio.StreamWriter
    admitted: set[int] = field(default_factory=set)
    gone: bool = False

    @property
    def worker(self) -> Worker:
        return self.member.worker

    def send(self, **message) -> None:
        # The kernel and asyncio buffer it: a worker that does not read is lost soon.
        if not self.writer.is_closing():
            self.writer.write(encode(message))


class Gateway:
    """Serves blocks to workers over TCP.

    Parameters
    ----------
    dispatcher : Dispatcher
        Touched by the gateway's thread only, while it runs.
    roster : Roster
        Told about workers; it writes them to the database.
    host, port : str, int
        Where to listen; port 0 takes any.
    secret : str
    timeout_s : float
        A worker whose host does not answer for so long is lost.
    on_event : function of a str
        Told in words what a user should know.
    """

    def __init__(
        self, dispatcher: Dispatcher, roster: Roster, *, host: str, port: int, secret: str,
        timeout_s: float, on_event: Callable[[str], None],
    ):
        self._dispatcher, self._roster = dispatcher, roster
        self._host, self._port, self._secret = host, port, secret
        self._timeout_s, self._on_event = timeout_s, on_event
        self._connections: dict[str, _Connection] = {}
        self._waiting: deque[_Connection] = deque()
        self._tasks: set[asyncio.Task] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self.finished = threading.Event()
        self.address: tuple[str, int] = (host, port)

    # -- called by the scheduler's main thread --------------------------------------------

    def __enter__(self) -> Gateway:
        self._thread.start()
        self._ready.wait()
        if isinstance(self._failed, OSError | UnicodeError):
            reason = getattr(self._failed, "strerror", None) or self._failed
            raise ConfigError(
                f"The scheduler cannot listen on {self._host}, port {self._port or 'any'}: {reason}. "
                "Workers connect to it there; set "
                "'scheduler_host' to an address of this machine and 'scheduler_port' to a free port, "
                "or to 0."
            ) from self._failed
        self.check()
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def close(self) -> None:
        """Tell all workers that the run has ended."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def check(self) -> None:
        """Raise what ended the gateway's thread, if it ended."""
        if self._failed is not None:
            raise self._failed

    def stop(self) -> None:
        """No further blocks; those in work are finished."""
        self._loop.call_soon_threadsafe(self._stop)

    def dismiss(self, slot: str, reason: str) -> None:
        """End the worker of a slot whose process is gone, or goes."""
        self._loop.call_soon_threadsafe(self._dismiss_slot, slot, reason)

    @property
    def n_held(self) -> int:
        """Blocks in work."""
        return self._dispatcher.n_held

    @property
    def slots(self) -> set[str]:
        """Slots whose workers are connected."""
        return {connection.member.slot for connection in list(self._connections.values())}

    @property
    def hosts_lost(self) -> set[str]:
        """Hosts that the next worker should not be put on."""
        used = {connection.worker.host for connection in list(self._connections.values())}
        return self._roster.unsafe_hosts(used)

    # -- the gateway's thread -------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            with self._dispatcher:
                self._listen()
        except Exception as error:  # for the main thread, which waits
            self._failed = error
        finally:
            self._ready.set()
            self.finished.set()
            self._loop.close()

    def _listen(self) -> None:
        try:
            server = self._loop.run_until_complete(asyncio.start_server(
                self._let_in, self._host, self._port, limit=LINE_BYTES, backlog=1024,
            ))
            self.address = (self._host, server.sockets[0].getsockname()[1])
            ticking = self._loop.create_task(self._tick())
            self._tasks.add(ticking)
            ticking.add_done_callback(self._ended)
            self._ready.set()
            self._loop.run_forever()
            self._part()
            # First nobody else is let in: a connection that is half accepted when the server is closed
            # stays open for ever (an assertion in asyncio's Server._attach).
            for listening in server.sockets:
                self._loop.remove_reader(listening.fileno())
            self._loop.run_until_complete(self._clear())
            server.close()
        finally:
            for task in self._tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))

    def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Here and not in the task, which may never begin if the run ends just now.
        self._writers.add(writer)
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _clear(self) -> None:
        """Let what was sent leave, then end what is left: guests that never proved anything."""
        await asyncio.sleep(0.02)
        # asyncio's own tasks, which let in who has just come, end by themselves and make new ones.
        while asyncio.all_tasks() != {asyncio.current_task()}:
            for task in list(self._tasks):
                task.cancel()
            for writer in list(self._writers):
                writer.transport.abort()
            self._writers.clear()
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)

    def _ended(self, task: asyncio.Task) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._failed = task.exception()
            self.finished.set()

    def _part(self) -> None:
        for connection in list(self._connections.values()):
            self._forget(connection, "left", "the run ended")
            connection.send(end="the run ended")
            connection.writer.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if not self._roster.database_away:  # or else blocks that are done wait to be recorded
                self._judge_times()
            self._hand_out(everybody=True)
            if self._dispatcher.finished:
                self.finished.set()

    def _judge_times(self) -> None:
        for worker, key in self._dispatcher.overdue():
            self._time_out(worker, key)
        for worker, key, seconds in self._dispatcher.stragglers():
            self._on_event(
                f"{self._name(key)} has been in work for {seconds:.0f} s on {worker.host}, usual are "
                f"{self._dispatcher.times[key[0]].median:.1f} s."
            )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection, reason, blame = None, "its connection ended", True
        try:
            connection = await asyncio.wait_for(self._greet(reader, writer), HELLO_S)
            while connection is not None and (line := await reader.readline()):
                self._take_in(connection, decode(line))
        except OSError as error:
            # A process that dies has its connection closed or reset; the rest is the network.
            blame = isinstance(error, ConnectionError)
            reason = f"its host does not answer: {error}" if not blame else f"{reason}: {error}"
            log.info("a connection ended with %r", error)
        except (
            ValueError, TypeError, OverflowError, RecursionError, asyncio.IncompleteReadError
        ) as error:
            log.info("a connection ended with %r", error)
        except asyncio.CancelledError:
            log.info("a connection ended with the run")
        finally:
            if connection is not None:
                self._lose(connection, reason, blame=blame)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
            self._writers.discard(writer)

    async def _greet(self, reader, writer) -> _Connection | None:
        nonce = new_secret()
        writer.write(encode({"em_blocks": 1, "nonce": nonce}))
        hello = decode(await reader.readline())
        name, theirs = str(hello.get("worker"))[:NAME_LENGTH], str(hello.get("nonce"))[:NAME_LENGTH]
        if not proven(hello.get("proof"), self._secret, "worker", nonce, name):
            log.warning("refused a client from %s: it does not know the secret of the run",
                        writer.get_extra_info("peername"))
            return None
        if name in self._connections or not self._dispatcher.accepting:
            writer.write(encode({"end": "the run takes no more workers"}))
            return None
        writer.write(encode({"proof": proof(self._secret, "scheduler", theirs),
                             "timeout_s": self._timeout_s, "ping_s": self._timeout_s / PINGS}))
        probe(writer.get_extra_info("socket"), self._timeout_s)
        connection = _Connection(Member.of(hello, name), writer)
        self._connections[name] = connection
        self._dispatcher.join(connection.worker)
        self._roster.joined(connection.member)
        return connection

    def _take_in(self, connection: _Connection, message: dict) -> None:
        if connection.gone:
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

    def _after(self, connection: _Connection) -> None:
        self._roster.holds(connection.member, self._dispatcher.held_by(connection.worker))
        self._hand_out()
        if self._dispatcher.finished:
            self.finished.set()

    def _hand_out(self, *, everybody: bool = False) -> None:
        """Give blocks to those who wait, in turn.

        Where the first gets none, the others most likely do not either: `everybody` is asked only
        now and then, and only if that may make a difference. Thousands may wait.
        """
        for _ in range(len(self._waiting)):
            connection = self._waiting.popleft()
            if connection.gone:
                continue
            key = self._dispatcher.take(connection.worker)
            if key is None:
                if not self._dispatcher.accepting:
                    connection.send(end="the run takes no more blocks")
                    continue
                self._waiting.append(connection)
                if not everybody or not self._dispatcher.choosy:
                    return
                continue
            self._give(connection, key)

    def _give(self, connection: _Connection, key: Key) -> None:
        self._roster.holds(connection.member, self._dispatcher.held_by(connection.worker))
        if key[0] in connection.admitted:
            connection.send(block=key)
            return
        # The database must list it before its first commit.
        task = self._loop.create_task(self._admit(connection, key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._ended)

    async def _admit(self, connection: _Connection, key: Key) -> None:
        while not connection.gone:
            try:
                await self._loop.run_in_executor(
                    None, self._roster.admit, connection.member, key[0]
                )
            except ServerError as error:  # how long it may be away is for the monitor to say
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
            self._roster.lost_block(connection.member, key, "BlockTimeout", reason)
            self._lose(connection, reason, blame=False, state="revoked")

    def _give_up_blocks(self, connection: _Connection, reason: str) -> None:
        """Count what a worker holds as attempts, which every other one would make in vain again."""
        for key in self._dispatcher.held_by(connection.worker):
            self._roster.lost_block(connection.member, key, "BlockTimeout", reason)
            self._dispatcher.timed_out(connection.worker, key)

    def _dismiss_slot(self, slot: str, reason: str) -> None:
        for connection in list(self._connections.values()):
            if connection.member.slot == slot:
                self._lose(connection, reason, blame=False, state="revoked")

    def _lose(
        self, connection: _Connection, reason: str, *, blame: bool, state: str = "lost"
    ) -> None:
        """Give what a worker held to others, and have its commits refused."""
        if connection.gone:
            return
        connection.send(end=reason)
        connection.writer.close()
        held = self._forget(connection, state, reason, blame=blame)
        for key in held if state == "lost" else ():
            self._roster.lost_block(connection.member, key, "WorkerLost", reason)
        if state != "left" or held:
            self._on_event(
                f"Worker {connection.worker.name} is gone: {reason}; {len(held)} blocks go to others."
            )
        self._hand_out()

    def _forget(
        self, connection: _Connection, state: str, reason: str, *, blame: bool = False
    ) -> list[Key]:
        connection.gone = True
        self._connections.pop(connection.worker.name, None)
        held = self._dispatcher.leave(connection.worker, blame=blame)
        self._roster.left(connection.member, state, reason)
        return held

    def _stop(self) -> None:
        self._dispatcher.stop()
        self._hand_out(everybody=True)
        if self._dispatcher.finished:
            self.finished.set()

    def _name(self, key: Key) -> str:
        return f"Block {'/'.join(map(str, key[1:]))} of {self._roster.runs[key[0]]}"
