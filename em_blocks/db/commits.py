"""Durable commits of finished blocks, grouped per worker."""

from __future__ import annotations

import os
import platform
import queue
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from em_blocks.db.connect import with_patience
from em_blocks.db.runs import DONE, FAILED, QUARANTINED, RunStore, block_fields
from em_blocks.errors import CommitRefusedError
from em_blocks.geometry import Block, BlockGrid

FLUSH_S = 0.05
FLUSH_BLOCKS = 64
IDLE_S = 0.5
DUPLICATE_KEY = 11000


def host_name() -> str:
    """Return the name of this machine, as the cluster calls it."""
    return os.environ.get("SLURMD_NODENAME") or platform.node()


@dataclass
class WorkerIdentity:
    """Who did a block: part of every block document."""

    worker: str
    epoch: int
    device: str
    host: str = field(default_factory=host_name)
    pid: int = field(default_factory=os.getpid)

    @classmethod
    def of_this_process(cls) -> WorkerIdentity:
        """Return an identity with a name that no other process has. The epoch is that of a run."""
        # Process numbers are used again, and all nodes count from one.
        name = f"{host_name()}-{os.getpid()}-{secrets.token_hex(2)}"
        return cls(name, 0, os.environ.get("CUDA_VISIBLE_DEVICES") or "cpu")


class CommitWriter:
    """Writes done and failed blocks from a thread of its own.

    A commit is durable (journal, majority) when it is written, not when it is queued. While the
    database is unavailable, commits are held and tried again, for at most `outage_s`.

    Parameters
    ----------
    store : RunStore
    grid : BlockGrid
        For the nm positions in the documents.
    identity : WorkerIdentity
    max_failures : int
        Failed attempts after which a block is quarantined.
    outage_s : float
    on_durable : function of a list of Block
        Told which blocks are recorded, by the writing thread.
    """

    def __init__(
        self, store: RunStore, grid: BlockGrid, identity: WorkerIdentity, *, max_failures: int,
        outage_s: float, on_durable: Callable[[list[Block]], None],
    ):
        self._store, self._grid, self._identity = store, grid, identity
        self._max_failures, self._outage_s = max_failures, outage_s
        self._on_durable = on_durable
        self._queue: queue.Queue[tuple[Block, UpdateOne] | None]
        self._queue = queue.Queue(maxsize=16 * FLUSH_BLOCKS)
        self._closing = threading.Event()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="commits", daemon=True)
        self._thread.start()

    def done(self, block: Block, started: float, report) -> None:
        """Queue the commit of a finished block, whose outputs are on disk."""
        self._put((block, UpdateOne(*self._done(block, started, report), upsert=True)))

    def failed(self, block: Block, started: float, error: dict) -> None:
        """Record a failed attempt, and quarantine the block after too many.

        Returns when it is recorded: the next attempt, maybe by another worker, must not
        be overtaken by the record of this one.
        """
        with_patience(lambda: self._write_failed(block, started, error), self._outage_s)

    def hurry(self) -> None:
        """Write what is queued now: nothing will follow soon."""
        self._put(None)

    def _put(self, item: tuple[Block, UpdateOne] | None) -> None:
        while self.error is None:
            try:
                self._queue.put(item, timeout=0.5)
                return
            except queue.Full:
                continue

    def close(self) -> None:
        """Write what is queued.

        Raises
        ------
        CommitRefusedError
            If the scheduler of this worker was replaced.
        DatabaseError
            If the database stayed unavailable; the blocks count as missing and are recomputed.
        """
        self._closing.set()
        self._put(None)
        self._thread.join()
        if self.error is not None:
            raise self.error

    # -- the writing thread ---------------------------------------------------------

    def _run(self) -> None:
        try:
            while not (self._closing.is_set() and self._queue.empty()):
                if taken := self._take():
                    updates = [update for _, update in taken]
                    with_patience(partial(self._write_done, updates), self._outage_s)
                    self._on_durable([block for block, _ in taken])
        except Exception as error:  # handed to the worker's main thread by close()
            self.error = error

    def _take(self) -> list[tuple[Block, UpdateOne]]:
        """Return commits of the next 50 ms, at most 64, and none later than a call of `hurry`."""
        items: list[tuple[Block, UpdateOne]] = []
        deadline: float | None = None
        while len(items) < FLUSH_BLOCKS:
            wait = IDLE_S if deadline is None else deadline - time.monotonic()
            try:
                item = self._queue.get(timeout=max(0.0, wait))
            except queue.Empty:
                break
            if item is None:
                break
            items.append(item)
            deadline = deadline or time.monotonic() + FLUSH_S
        return items

    def _write_done(self, updates: list[UpdateOne]) -> None:
        self._store.check_worker(self._identity.worker, self._identity.epoch)
        try:
            self._store.blocks.bulk_write(updates, ordered=False)
        except BulkWriteError as error:
            codes = {e["code"] for e in error.details["writeErrors"]}
            # The filter asks for an epoch not newer than ours; where a newer one has
            # committed the block, the upsert collides with it.
            if codes == {DUPLICATE_KEY}:
                raise CommitRefusedError(
                    f"A newer scheduler of run {self._store.run!r} has recorded blocks of this worker."
                ) from error
            raise

    def _done(self, block: Block, started: float, report) -> tuple[dict, dict]:
        identity = self._identity
        key = f"{self._store.run}/{block.key}"
        fields = {
            **block_fields(self._store.run, self._grid, block),
            "state": DONE,
            "epoch": identity.epoch,
            "started": _date(started),
            "finished": _date(time.time()),
            "seconds": report.seconds,
            "worker": identity.worker,
            "host": identity.host,
            "device": identity.device,
            "counts": report.counts,
            "checksums": report.checksums,
            "peak_memory_mb": peak_memory_mb(),
            "failures": 0,
            "error": None,
        }
        return (
            {"_id": key, "epoch": {"$lte": identity.epoch}},
            {"$set": fields, "$inc": {"attempts": 1}},
        )

    def _write_failed(self, block: Block, started: float, error: dict) -> None:
        identity, store = self._identity, self._store
        store.check_worker(identity.worker, identity.epoch)
        attempt = {
            "_id": f"{store.run}/{block.key}/{identity.worker}/{started:.6f}",
            "run": store.run, "block": block.key, "epoch": identity.epoch,
            "worker": identity.worker, "host": identity.host, "device": identity.device,
            "started": _date(started), "finished": _date(time.time()), "error": error,
        }
        first = store.attempts.replace_one({"_id": attempt["_id"]}, attempt, upsert=True)
        fields = {
            **block_fields(store.run, self._grid, block),
            "epoch": identity.epoch, "worker": identity.worker, "host": identity.host,
            "device": identity.device, "finished": attempt["finished"], "error": error,
        }
        once = {"$inc": {"attempts": 1, "failures": 1}} if first.upserted_id else {}
        undone = {"_id": f"{store.run}/{block.key}", "state": {"$ne": DONE}}
        try:
            found = store.blocks.find_one_and_update(
                undone, {"$set": {**fields, "state": FAILED}, **once},
                upsert=True, return_document=True,
            ) or {}
        except DuplicateKeyError:
            return  # another attempt at it, in other hands, has recorded it as done
        if found["failures"] >= self._max_failures:
            store.blocks.update_one({"_id": found["_id"]}, {"$set": {"state": QUARANTINED}})


def peak_memory_mb() -> int:
    """Return the largest resident memory of this process so far.

    Not ``ru_maxrss``: that survives exec, so a worker would inherit the peak of the
    process that started it.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
