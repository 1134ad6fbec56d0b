"""Find and kill processes by where they run, however they were started."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

NAMESPACES = Path("/run/netns")


def with_variable(name: str, value: str) -> list[int]:
    """Processes that were started with this environment variable."""
    entry = f"{name}={value}".encode()
    return [pid for pid in _others() if entry in _environment(pid)]


def in_namespace(name: str) -> list[int]:
    """Processes in a network namespace."""
    try:
        inside = os.stat(NAMESPACES / name).st_ino
    except FileNotFoundError:
        return []
    return [pid for pid in _others() if _network(pid) == inside]


def kill_all(find: Callable[[], list[int]], timeout_s: float = 20.0) -> None:
    """SIGKILL whatever `find` finds, until it finds nothing: some start others while they die.

    Raises
    ------
    TimeoutError
        If some are still there.
    """
    deadline = time.monotonic() + timeout_s
    while pids := find():
        for pid in pids:
            kill(pid)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {pids} do not die")
        time.sleep(0.02)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):  # it ended in the meantime
        os.kill(pid, number)


def command_line(pid: int) -> str:
    """Command of a process; empty if it is gone."""
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()


def _others() -> Iterator[int]:
    """All processes but this one and those that it runs in."""
    ours = _ancestors(os.getpid())
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) not in ours:
            yield int(entry.name)


def _ancestors(pid: int) -> set[int]:
    found = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        # The name in parentheses may hold anything; the parent is the second field after it.
        pid = int((_read(pid, "stat").rpartition(b")")[2].split() or [0, 0])[1])
    return found


def _environment(pid: int) -> list[bytes]:
    return _read(pid, "environ").split(b"\0")


def _network(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:  # gone, or a zombie
        return None


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # gone, or a zombie
        return b""
