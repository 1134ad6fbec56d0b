"""A worker's connection to its scheduler: proof, blocks, pings, and whether it still counts."""

from __future__ import annotations

import logging
import math
import queue
import socket
import threading
import time

from em_blocks.errors import RefusedError, SchedulerLostError
from em_blocks.runtime.protocol.liveness import probe
from em_blocks.runtime.protocol.wire import (
    LINE_BYTES,
    Key,
    decode,
    encode,
    new_secret,
    proof,
    proven,
)

log = logging.getLogger(__name__)

CONNECT_S = 20.0
LOST_S = 2.0


class Client:
    """A connection to the scheduler.

    Parameters
    ----------
    address : tuple of str and int
    secret : str
        Of the run.
    hello : dict
        ``worker``, ``host``, ``pid``, ``device``, ``slot``.

    Raises
    ------
    SchedulerLostError
        If the address does not answer.
    RefusedError
        If another program answers, or the scheduler takes no workers.
    """

    def __init__(self, address: tuple[str, int], secret: str, hello: dict):
        # No threading.Event: a signal handler sets it, maybe in the middle of its own lock.
        self._leaving = False
        self.out_of_time = False
        """Whether it leaves because its walltime ends."""
        self.deadline: float | None = None
        """When this worker must have ended, by the monotonic clock."""
        self.longest_s = 0.0
        """Seconds of the longest block that it did."""
        self.dismissed = False
        """Whether the scheduler said that there are no further blocks."""
        self.lost: str | None = None
        """Why the scheduler no longer counts on this worker."""
        self._place = f"{address[0]}:{address[1]}"
        self._socket = _reach(address, hello["host"])
        self._lines = self._socket.makefile("rb")
        self._sending = threading.Lock()
        self._blocks: queue.Queue[Key] = queue.Queue()
        try:
            timeout_s, self._ping_s = self._greet(secret, hello)
        except RefusedError:
            self._lines.close()
            self._socket.close()
            raise
        # After this much silence, the block may already have been given to another worker.
        self._fresh_s = 0.6 * timeout_s
        self._counted = time.monotonic()
        self._socket.settimeout(None)
        probe(self._socket, timeout_s)
        for name, run in (("hears", self._hear), ("pings", self._ping)):
            threading.Thread(target=run, name=name, daemon=True).start()

    def take(self, idle) -> Key | None:
        """Return the next block, None if there will be none; calls `idle` if it has to wait."""
        if self._leaving or self.lost is not None:
            return None
        self._send(want=1)
        try:
            return self._blocks.get(timeout=0.005)
        except queue.Empty:
            idle()
        while not self._leaving:
            try:
                return self._blocks.get(timeout=0.2)
            except queue.Empty:
                continue
        return None

    def done(self, *keys: Key) -> None:
        """Report blocks that are durably recorded."""
        self._send(done=keys)

    def failed(self, key: Key) -> None:
        """Report a failed attempt, which is recorded."""
        self._send(failed=key)

    def leave(self, within_s: float | None = None) -> None:
        """Take no further blocks; those unfinished after `within_s` are requeued."""
        if within_s is not None:
            # A later reason may leave less time: first the walltime, then a scheduler that is lost.
            self.deadline = min(self.deadline or math.inf, time.monotonic() + within_s)
        self._leaving = True

    def bye(self, reason: str, *, fault: bool = False, too_long: bool = False) -> None:
        """Tell the scheduler that this worker leaves; the blocks that it holds are requeued.

        Parameters
        ----------
        fault : bool
            Whether it leaves because of an error of its own.
        too_long : bool
            Whether the blocks that it holds take longer than any worker may run.
        """
        self._send(bye=reason, fault=fault, too_long=too_long)
        self._socket.close()

    def wait_until_fresh(self) -> None:
        """Wait until the scheduler is known to count on this worker: to be called before writing.

        Raises
        ------
        SchedulerLostError
            If it does not.
        """
        while time.monotonic() - self._counted > self._fresh_s:
            if self.lost is not None:
                break
            time.sleep(0.05)
        if self.lost is not None:
            raise SchedulerLostError(
                f"The scheduler no longer counts on this worker ({self.lost}); the block is not written."
            )

    # -- the connection -----------------------------------------------------------------

    def _greet(self, secret: str, hello: dict) -> tuple[float, float]:
        nonce = new_secret()
        try:
            challenge = decode(self._lines.readline(LINE_BYTES))["nonce"]
            self._send(**hello, nonce=nonce, proof=proof(secret, "worker", challenge, hello["worker"]))
            answer = decode(self._lines.readline(LINE_BYTES))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RefusedError(
                f"{self._place} is not the scheduler of this run, or it refused this worker "
                f"({error!r}). The session file belongs to another start of the run; start the "
                "worker again."
            ) from error
        if not proven(answer.get("proof"), secret, "scheduler", nonce):
            raise RefusedError(
                f"The scheduler at {self._place} takes no worker: "
                f"{answer.get('end', 'it does not know the secret of this run')}."
            )
        return float(answer["timeout_s"]), float(answer["ping_s"])

    def _send(self, **message) -> None:
        try:
            with self._sending:
                self._socket.sendall(encode(message))
        except OSError as error:
            self._lose(f"sending failed: {error}")

    def _ping(self) -> None:
        while self.lost is None:
            self._send(ping=time.monotonic())
            time.sleep(self._ping_s)

    def _hear(self) -> None:
        try:
            while line := self._lines.readline(LINE_BYTES):
                message = decode(line)
                if "pong" in message:
                    # When the ping left, not when its answer is read: that may have waited here for
                    # as long as this process was stopped.
                    self._counted = float(message["pong"])
                if "block" in message:
                    self._blocks.put(tuple(message["block"]))
                if "end" in message:
                    log.info("no further blocks: %s", message["end"])
                    self.dismissed = True
                    self._leaving = True
            self._lose("it closed the connection")
        except (OSError, ValueError) as error:
            self._lose(f"{error}")

    def _lose(self, reason: str) -> None:
        self.lost = self.lost or reason
        self.leave(within_s=LOST_S)


def _reach(address: tuple[str, int], host: str) -> socket.socket:
    try:
        connection = socket.create_connection(address, timeout=CONNECT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    except OSError as error:
        raise SchedulerLostError(
            f"The scheduler at {address[0]}:{address[1]} cannot be reached from {host}: {error}. "
            "Workers get their blocks from there. Set 'scheduler_host' to an address of the submit host "
            "that the nodes can reach (and 'scheduler_port' to a port that the firewall lets through), "
            "or start the command again if it has ended."
        ) from error
