"""Detection of a host that no longer answers, whatever its process does.

A process may be unable to send messages: compiled code can block Python's threads for minutes. Its
kernel answers all the same, so TCP keepalive tells a host that is lost or cut off from one that works.
"""

from __future__ import annotations

import socket

PROBES = 3


def probe(connection: socket.socket, timeout_s: float) -> None:
    """Have the kernel probe the other end, and close the connection after `timeout_s` without answer."""
    every = max(1, round(timeout_s / (PROBES + 1)))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, every)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
    # Keepalive does not probe while sent data is unacknowledged; this limits that as well.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * timeout_s))
