"""Accepting workers: a TCP server that admits only clients that prove the secret of the run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from em_blocks.errors import ConfigError
from em_blocks.runtime.protocol.liveness import probe
from em_blocks.runtime.protocol.wire import (
    LINE_BYTES,
    PINGS,
    decode,
    encode,
    new_secret,
    proof,
    proven,
)
from em_blocks.runtime.scheduler.dispatch import Worker
from em_blocks.runtime.scheduler.worker_registry import Member

log = logging.getLogger(__name__)

HELLO_S = 10.0
TICK_S = 0.25
NAME_LENGTH = 200


@dataclass(eq=False)
class Connection:
    """One worker that has proved the secret.

    Attributes
    ----------
    admitted : set of int
        Steps for which the database lists it.
    closed : bool
        Whether its messages no longer count.
    """

    member: Member
    writer: asyncio.StreamWriter
    admitted: set[int] = field(default_factory=set)
    closed: bool = False

    @property
    def worker(self) -> Worker:
        return self.member.worker

    def send(self, **message) -> None:
        # The kernel and asyncio buffer it: a worker that does not read is lost soon.
        if not self.writer.is_closing():
            self.writer.write(encode(message))


class Server(ABC):
    """Accepts workers in an asyncio loop, which runs in a thread of its own.

    A client that has not proved the secret is sent nothing but a nonce. Subclasses say what connected
    workers are told; their methods are called in the loop's thread.

    Parameters
    ----------
    host, port : str, int
        Where to listen; port 0 takes any.
    secret : str
    timeout_s : float
        A worker whose host does not answer for this long is lost.

    Attributes
    ----------
    finished : threading.Event
        Set when the loop has nothing left to do, or has failed: see `check`.
    address : (str, int)
    """

    def __init__(self, *, host: str, port: int, secret: str, timeout_s: float):
        self._host, self._port, self._secret, self._timeout_s = host, port, secret, timeout_s
        self._connections: dict[str, Connection] = {}
        self._tasks: set[asyncio.Task] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self.finished = threading.Event()
        self.address: tuple[str, int] = (host, port)

    # -- what a subclass does -----------------------------------------------------------------

    @abstractmethod
    def _serving(self) -> AbstractContextManager:
        """Hold what belongs to the loop's thread while it runs."""

    @property
    @abstractmethod
    def _accepting(self) -> bool:
        """Whether further workers are of use."""

    @abstractmethod
    def _joined(self, connection: Connection) -> None:
        """Count on a worker."""

    @abstractmethod
    def _take_in(self, connection: Connection, message: dict) -> None:
        """Act on a message. Raises `ValueError` or `TypeError` for nonsense, which ends the worker."""

    @abstractmethod
    def _lose(self, connection: Connection, reason: str, *, blame: bool) -> None:
        """Requeue what a worker held; `blame` if its process died."""

    @abstractmethod
    def _part(self) -> None:
        """Tell all workers that the run ended."""

    @abstractmethod
    def _tick(self) -> None:
        """Look after everything; called every `TICK_S`."""

    # -- called by the scheduler's main thread ------------------------------------------------

    def __enter__(self):
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
        """Raise what ended the loop's thread, if it ended."""
        if self._failed is not None:
            raise self._failed

    # -- the loop's thread ----------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            with self._serving():
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
            self._spawn(self._keep_ticking(), vital=True)
            self._ready.set()
            self._loop.run_forever()
            self._part()
            # First stop accepting: a connection that is half accepted when the server is closed
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
        self._spawn(self._serve(reader, writer))

    def _spawn(self, coroutine: Coroutine, *, vital: bool = False) -> None:
        """Run a coroutine beside the others; what it raises ends the server if it is `vital`."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if vital:
            task.add_done_callback(self._ended)

    async def _keep_ticking(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._tick()

    async def _clear(self) -> None:
        """Let what was sent leave, then end what is left: clients that never proved anything."""
        await asyncio.sleep(0.02)
        # asyncio's own tasks, which accept new connections, end by themselves and make new ones.
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

    async def _greet(self, reader, writer) -> Connection | None:
        nonce = new_secret()
        writer.write(encode({"em_blocks": 1, "nonce": nonce}))
        hello = decode(await reader.readline())
        name, theirs = str(hello.get("worker"))[:NAME_LENGTH], str(hello.get("nonce"))[:NAME_LENGTH]
        if not proven(hello.get("proof"), self._secret, "worker", nonce, name):
            log.warning("refused a client from %s: it does not know the secret of the run",
                        writer.get_extra_info("peername"))
            return None
        if name in self._connections or not self._accepting:
            writer.write(encode({"end": "the run takes no more workers"}))
            return None
        writer.write(encode({"proof": proof(self._secret, "scheduler", theirs),
                             "timeout_s": self._timeout_s, "ping_s": self._timeout_s / PINGS}))
        probe(writer.get_extra_info("socket"), self._timeout_s)
        connection = Connection(Member.of(hello, name), writer)
        self._connections[name] = connection
        self._joined(connection)
        return connection
