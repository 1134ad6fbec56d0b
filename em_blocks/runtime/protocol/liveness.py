"""Whether the host at the other end of a connection still answers, whatever its process does.

A process may be unable to say that it lives: compiled code can keep Python's threads waiting for
minutes. Its kernel answers all the same, so probes of the kernel (TCP keepalive) tell a host that is
lost, or cut off, from one that works.
"""

from __future__ import annotations

import socket

PROBES = 3


def probe(connection: socket.socket, timeout_s: float) -> None:
    """Have the kernel ask for the other end, and end the connection if it is gone for `timeout_s`."""
    every = max(1, round(timeout_s / (PROBES + 1)))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, every)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
    # What was sent and is not acknowledged keeps keepalive quiet; this ends it as well.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * timeout_s))
