"""Who is the one scheduler of a run."""

from __future__ import annotations

import os
import socket
from datetime import datetime

import psutil

from em_blocks.db.leases import LEASE_TIMEOUT_S
from em_blocks.db.runs import RunStore
from em_blocks.errors import LeaseHeldError
from em_blocks.tasks.base import BlockwiseTask


def take_lease(store: RunStore, task: BlockwiseTask) -> int:
    """Become the only scheduler of an existing run; returns the epoch. Raises `LeaseHeldError`."""
    lease = store.load()["lease"]
    dead = lease["owner"] if lease["owner"] and not owner_lives(lease["owner"]) else None
    epoch = store.take_lease(this_owner(), from_owner=dead)
    if epoch is None:
        lease = store.load()["lease"]
        age = (store.now() - lease["heartbeat"]).total_seconds()
        raise LeaseHeldError(
            f"Run {task.run!r} is being worked on by {lease['owner']} (host:pid:start), whose last "
            f"heartbeat was {age:.0f} s ago. Two schedulers would do every block twice. Wait for it, or "
            "stop it; if it died on another host, it is taken over 30 s after its last heartbeat."
        )
    return epoch


def this_owner() -> str:
    """Return ``host:pid:start`` of this process; the start time tells a reused pid apart."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def owner_lives(owner: str) -> bool:
    """Return whether the process of a lease may live; on other hosts only the heartbeat can tell."""
    host, pid, started = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == started
    except psutil.NoSuchProcess:
        return False


def is_alive(lease: dict, now: datetime) -> bool:
    """Return whether a scheduler holds a lease, as far as its heartbeat and its process tell."""
    if not lease["owner"] or not owner_lives(lease["owner"]):
        return False
    beat = lease["heartbeat"]
    return beat is not None and (now - beat).total_seconds() < LEASE_TIMEOUT_S
