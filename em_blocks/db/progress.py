"""Read-only, bounded queries for monitoring a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime

import pymongo

from em_blocks.db.leases import WORKING
from em_blocks.db.runs import DONE, FAILED, QUARANTINED, VOXELS, RunStore

_MANY = 100_000
_NAMES = 10


def answered_within(seconds: float) -> AbstractContextManager[None]:
    """Every database call inside fails after `seconds`, also if the server hangs without a word."""
    return pymongo.timeout(seconds)


def latest_done(store: RunStore, since: datetime, most: int) -> list[tuple[datetime, int]]:
    """When the latest done blocks were finished, and their voxels; newest first, none before `since`."""
    found = store.blocks.aggregate([
        {"$match": {"run": store.run, "finished": {"$gte": since}, "state": DONE}},
        {"$sort": {"finished": -1}}, {"$limit": most},
        {"$project": {"_id": 0, "finished": 1, "voxels": VOXELS}},
    ])
    return [(d["finished"], d["voxels"]) for d in found]


def section(store: RunStore, z: int) -> Iterator[dict]:
    """Return blocks of the grid's section `z` that have a record, with what a map shows of them."""
    # All ids run/z/... and no others: "0" follows "/". The index of the ids finds them.
    ids = {"$gte": f"{store.run}/{z}/", "$lt": f"{store.run}/{z}0"}
    shown = ("state", "attempts", "seconds", "host", "worker")
    return store.blocks.find({"_id": ids}, dict.fromkeys(shown, 1), batch_size=_MANY)


def failing(store: RunStore, most: int) -> list[str]:
    """Return keys ``zi/yi/xi`` of at most `most` failed and quarantined blocks."""
    query = {"run": store.run, "state": {"$in": [FAILED, QUARANTINED]}}
    found = store.blocks.find(query, {"_id": 1}).limit(most)
    return [d["_id"].removeprefix(f"{store.run}/") for d in found]


def workers(store: RunStore, runs: Sequence[str], most: int) -> list[dict]:
    """Return at most `most` records of workers of these `runs` of the database, those at work first.

    A worker that does blocks of several runs has a record in each, with the same totals.
    """
    order = [("state", -1), ("heartbeat", -1)]  # working, revoked, lost, left
    return list(store.workers.find({"run": {"$in": list(runs)}}).sort(order).limit(most))


def worker_states(store: RunStore, runs: Sequence[str]) -> dict[str, int]:
    """Return the number of workers of these `runs` per state."""
    groups = store.workers.aggregate([
        {"$match": {"run": {"$in": list(runs)}}},
        {"$group": {"_id": "$worker", "state": {"$max": "$state"}}},
        {"$group": {"_id": "$state", "n": {"$sum": 1}}},
    ])
    return {g["_id"]: g["n"] for g in groups}


def held_blocks(store: RunStore) -> set[str]:
    """Return keys of the blocks that workers hold now."""
    there = {"run": store.run, "state": WORKING}
    held = store.workers.find(there, {"_id": 0, "blocks": 1})
    return {key for d in held for key in d.get("blocks", ())}


def attempts(store: RunStore, key: str, most: int) -> list[dict]:
    """Return the latest failed tries of a block."""
    found = store.attempts.find({"run": store.run, "block": key}, {"run": 0})
    return list(found.sort("finished", -1).limit(most))


def failures_by_error(store: RunStore, most: int) -> list[dict]:
    """Return what failed, by type of error and stage, those that still fail first.

    Returns
    -------
    list of dict
        At most `most` of type, stage, blocks (that are failed or quarantined now), tries (that
        failed, also of blocks that another try has done), last (date), hosts (some), and of the
        latest of them block (None: the worker had none), message and traceback.
    """
    now, ever = _failing_now(store), _failed_tries(store)
    kinds = sorted(
        now.keys() | ever.keys(),
        key=lambda kind: (-now.get(kind, 0), -ever.get(kind, {"tries": 0})["tries"], str(kind)),
    )
    return [_failure(store, kind, now, ever) for kind in kinds[:most]]


_KIND = {"type": "$error.type", "stage": "$error.stage"}


def _failing_now(store: RunStore) -> dict[tuple, int]:
    groups = store.blocks.aggregate([
        {"$match": {"run": store.run, "state": {"$in": [FAILED, QUARANTINED]}}},
        {"$group": {"_id": _KIND, "n": {"$sum": 1}}},
    ])
    return {_kind(group): group["n"] for group in groups}


def _failed_tries(store: RunStore) -> dict[tuple, dict]:
    groups = store.attempts.aggregate([
        {"$match": {"run": store.run}},
        {"$group": {"_id": _KIND, "tries": {"$sum": 1}, "last": {"$max": "$finished"},
                    "hosts": {"$addToSet": "$host"}}},
    ])
    return {_kind(group): group for group in groups}


def _kind(group: dict) -> tuple:
    return group["_id"].get("type"), group["_id"].get("stage")


def _failure(store: RunStore, kind: tuple, now: dict, ever: dict) -> dict:
    query = {"run": store.run, "error.type": kind[0], "error.stage": kind[1]}
    if kind in ever:
        latest = store.attempts.find_one(query, sort=[("finished", -1)]) or {}
        block = latest.get("block")
    else:  # recorded by the scheduler, for a worker that could not
        states = {"state": {"$in": [FAILED, QUARANTINED]}}
        latest = store.blocks.find_one({**query, **states}, sort=[("finished", -1)]) or {}
        block = latest.get("_id", "").removeprefix(f"{store.run}/") or None
    tries, error = ever.get(kind, {}), latest.get("error") or {}
    return {
        "type": kind[0], "stage": kind[1], "blocks": now.get(kind, 0), "tries": tries.get("tries", 0),
        "last": tries.get("last") or latest.get("finished"),
        "hosts": sorted(filter(None, tries.get("hosts", ())))[:_NAMES],
        "block": block, "message": error.get("message"), "traceback": error.get("traceback"),
    }
