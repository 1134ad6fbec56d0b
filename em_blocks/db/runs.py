"""Runs and blocks in MongoDB: the truth about what is done."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from datetime import datetime

import numpy as np
from pymongo.errors import PyMongoError

from em_blocks.db.leases import LeasedRun
from em_blocks.db.problems import not_writable
from em_blocks.errors import DatabaseError
from em_blocks.geometry import BlockGrid, Triple

# Of one block, as an expression for aggregations.
VOXELS = {"$multiply": [{"$arrayElemAt": ["$shape", axis]} for axis in range(3)]}

DONE, FAILED, QUARANTINED = "done", "failed", "quarantined"

_KEYS_AT_ONCE = 50_000

# Of a done block, the epoch in which it got what it holds: not the last one, if that stored the same.
_THE_SAME = {"$and": [
    {"$gt": ["$previous.generation", None]}, {"$eq": ["$checksums", "$previous.checksums"]}
]}
_GENERATION = {"$cond": [_THE_SAME, "$previous.generation", "$epoch"]}

# Attempts that ended with their worker: they say nothing about the task.
LOSSES = ["WorkerLost", "BlockTimeout"]


class RunStore(LeasedRun):
    """The documents of one run: its record, its lease, its workers and its blocks."""

    def prepare(self) -> None:
        """Make the indexes; this also proves that the database can be written."""
        try:
            # The run's name leads, and _id ends in the block index: one covered query
            # answers what is left of 10^6 blocks. An index on the array `index` could
            # not be unique (MongoDB indexes its elements one by one); _id is.
            self.blocks.create_index([("run", 1), ("state", 1), ("_id", 1)])
            self.attempts.create_index([("run", 1), ("block", 1)])
            self.workers.create_index([("run", 1)])
        except PyMongoError as error:
            raise DatabaseError(not_writable(self.database, error)) from error

    # -- the run document -----------------------------------------------------------

    def load(self) -> dict | None:
        """Return the run's document, or None."""
        return self.runs.find_one({"_id": self.run})

    def of_run(self, run: str) -> RunStore:
        """Return the documents of another run in the same database."""
        return RunStore(self.client, self.database.name, run)

    def other_run(self, query: dict) -> str | None:
        """Return the name of a run other than this one that fits `query`, if there is any."""
        found = self.runs.find_one({**query, "_id": {"$ne": self.run}}, {"_id": 1})
        return found["_id"] if found else None

    def measured_by(self, query: dict) -> dict | None:
        """Return what the newest other run that fits `query` measured; None without such a run."""
        query = {**query, "_id": {"$ne": self.run}}
        found = self.runs.find_one(query, {"measured": 1}, sort=[("created", -1)])
        return found and found["measured"]

    def create(self, document: dict, *, epoch: int) -> None:
        """Store a new run; it must not exist. Leases go on counting from `epoch`."""
        now = self.now()
        self.runs.insert_one(
            {"_id": self.run, **document, "state": "stopped", "created": now, "updated": now,
             "lease": {"owner": None, "epoch": epoch, "heartbeat": None}}
        )

    def update(self, **values) -> None:
        """Set fields of the run's document."""
        self.runs.update_one({"_id": self.run}, {"$set": {**values, "updated": self.now()}})

    def remove(self) -> None:
        """Delete the run and all of its blocks."""
        self.clear()
        self.runs.delete_one({"_id": self.run})

    def clear(self) -> None:
        """Delete all blocks of the run, but not the run."""
        for collection in (self.blocks, self.attempts, self.workers):
            collection.delete_many({"run": self.run})

    # -- blocks ---------------------------------------------------------------------

    def indices(self, *states: str) -> np.ndarray:
        """Return the block indices (n, 3) int64 of all blocks in one of `states`."""
        query = {"run": self.run, "state": {"$in": states}}
        skip = len(self.run) + 1
        found = self.blocks.find(query, {"_id": 1}, batch_size=100_000)
        text = "/".join(document["_id"][skip:] for document in found)
        return np.fromstring(text, dtype=np.int64, sep="/").reshape(-1, 3)

    def mask(self, shape: Triple, *states: str) -> np.ndarray:
        """Return a bool array (z, y, x) over the block grid: which blocks are in one of `states`."""
        mask = np.zeros(shape, bool)
        mask[tuple(self.indices(*states).T)] = True
        return mask

    def n_done(self) -> int:
        """Return the number of done blocks."""
        return self.blocks.count_documents({"run": self.run, "state": DONE})

    def generations(self, shape: Triple, blocks: np.ndarray | None = None) -> np.ndarray:
        """Return the epoch in which each done block got what it holds, uint32 (z, y, x); 0 for others.

        Parameters
        ----------
        blocks : (z, y, x) bool array, optional
            Only these are asked for.
        """
        found = np.zeros(shape, np.uint32)
        skip = len(self.run) + 1
        for part in [{"run": self.run}] if blocks is None else self._parts(blocks):
            documents = self.blocks.aggregate(
                [{"$match": {**part, "state": DONE}}, {"$project": {"generation": _GENERATION}}],
                batchSize=100_000,
            )
            for document in documents:
                index = tuple(map(int, document["_id"][skip:].split("/")))
                found[index] = document["generation"]
        return found

    def requeue_blocks(self, blocks: np.ndarray, why: str) -> int:
        """Make the done ones of the blocks in a bool array (z, y, x) due again; returns how many.

        What they hold now is kept in mind: one that comes out the same keeps its generation, so what
        reads it need not be done again.
        """
        error = {"type": "InputChanged", "message": why, "stage": None, "traceback": None}
        again = {
            "state": FAILED, "failures": 0, "error": {"$literal": error},
            "previous": {"checksums": "$checksums", "generation": _GENERATION},
        }
        return sum(
            self.blocks.update_many({**part, "state": DONE}, [{"$set": again}]).modified_count
            for part in self._parts(blocks)
        )

    def counts(self) -> dict[str, int]:
        """Return the number of blocks per state."""
        groups = self.blocks.aggregate(
            [{"$match": {"run": self.run}}, {"$group": {"_id": "$state", "n": {"$sum": 1}}}]
        )
        return {DONE: 0, FAILED: 0, QUARANTINED: 0} | {g["_id"]: g["n"] for g in groups}

    def documents(self, query: dict | None = None, **options) -> Iterator[dict]:
        """Return the block documents of this run."""
        return self.blocks.find({"run": self.run, **(query or {})}, **options)

    def block(self, key: str) -> dict | None:
        """Return the document of block ``zi/yi/xi``, or None."""
        return self.blocks.find_one({"_id": f"{self.run}/{key}"})

    def requeue(self, keys: list[str] | None = None) -> int:
        """Make failed and quarantined blocks (or only `keys`) due again; returns how many."""
        query = {"run": self.run, "state": {"$in": [FAILED, QUARANTINED]}}
        if keys:
            query["_id"] = {"$in": [f"{self.run}/{key}" for key in keys]}
        return self.blocks.update_many(query, {"$set": {"state": FAILED, "failures": 0}}).matched_count

    def mark_failed(self, grid: BlockGrid, index: Triple, epoch: int, error: dict) -> None:
        """Record a block whose failure no worker could record itself."""
        block = grid.block(index)
        self.blocks.update_one(
            {"_id": f"{self.run}/{block.key}"},
            {"$set": {**block_fields(self.run, grid, block), "state": FAILED, "epoch": epoch,
                      "error": error, "finished": self.now()},
             "$inc": {"attempts": 1}},
            upsert=True,
        )

    # -- summaries ------------------------------------------------------------------

    def totals(self, *, but: np.ndarray | None = None) -> dict:
        """Return sums over done blocks: voxels, seconds per stage, counts.

        A task reports the same stages and counts for every block, so those of one block
        name them all; unfolding every document would take ten times as long.

        Parameters
        ----------
        but : (z, y, x) bool array, optional
            Done blocks that are not counted.
        """
        one = self.blocks.find_one({"run": self.run, "state": DONE}) or {}
        names = [f"{group}.{key}" for group in ("seconds", "counts") for key in one.get(group, {})]
        sums = self._sums(names, {})
        for keys in self._keys(but) if but is not None else ():
            left_out = self._sums(names, {"_id": {"$in": keys}})
            sums = [whole - part for whole, part in zip(sums, left_out, strict=True)]
        totals = {"voxels": sums[0], "seconds": {}, "counts": {}}
        for name, value in zip(names, sums[1:], strict=True):
            group, _, key = name.partition(".")
            totals[group][key] = value
        return totals

    def _sums(self, names: list[str], query: dict) -> list:
        """Return sums of voxels and of the fields `names` over done blocks."""
        sums = {f"s{n}": {"$sum": f"${name}"} for n, name in enumerate(names)}
        found: dict = next(iter(self.blocks.aggregate([
            {"$match": {"run": self.run, "state": DONE, **query}},
            {"$group": {"_id": None, "voxels": {"$sum": VOXELS}, **sums}},
        ])), {})
        return [found.get(name, 0) for name in ("voxels", *sums)]

    def _parts(self, blocks: np.ndarray) -> Iterator[dict]:
        """Return queries for the documents of a bool array (z, y, x) of blocks."""
        return ({"_id": {"$in": keys}} for keys in self._keys(blocks))

    def _keys(self, blocks: np.ndarray) -> Iterator[list[str]]:
        """Yield ids of the block documents of a bool array (z, y, x), `_KEYS_AT_ONCE` at a time."""
        indices = np.argwhere(blocks).tolist()
        for first in range(0, len(indices), _KEYS_AT_ONCE):
            some = indices[first : first + _KEYS_AT_ONCE]
            yield [f"{self.run}/{'/'.join(map(str, index))}" for index in some]

    def voxels_done_since(self, start: datetime) -> int:
        """Return voxels of the blocks that were finished since `start`."""
        found = self.blocks.aggregate([
            {"$match": {"run": self.run, "state": DONE, "finished": {"$gte": start}}},
            {"$group": {"_id": None, "n": {"$sum": VOXELS}}},
        ])
        return next(iter(found), {"n": 0})["n"]

    def slowest(self, n: int, *, but: np.ndarray) -> list[dict]:
        """Return the `n` done blocks that took longest, none of the blocks `but`: key and seconds."""
        found = self.blocks.aggregate([
            {"$match": {"run": self.run, "state": DONE}},
            {"$project": {"host": 1, "index": 1, "total": {"$sum": {"$map": {
                "input": {"$objectToArray": "$seconds"}, "in": "$$this.v"}}}}},
            {"$sort": {"total": -1}}, {"$limit": n + int(but.sum())},
        ])
        shown = itertools.islice((d for d in found if not but[tuple(d["index"])]), n)
        return [{"block": d["_id"].removeprefix(self.run + "/"), "seconds": d["total"],
                 "host": d.get("host")} for d in shown]

    def failure_groups(self, epoch: int) -> list[dict]:
        """Return failed attempts of an epoch by kind of error.

        Returns
        -------
        list of dict
            type, stage, message (of one of them), blocks (how many), starts (how many
            workers failed before their first block).
        """
        found = self.attempts.aggregate([
            {"$match": {"run": self.run, "epoch": epoch, "error.type": {"$nin": LOSSES}}},
            {"$group": {
                "_id": {"type": "$error.type", "stage": "$error.stage"},
                "message": {"$first": "$error.message"},
                "blocks": {"$addToSet": "$block"},
                "starts": {"$sum": {"$cond": [{"$eq": ["$block", None]}, 1, 0]}},
            }},
        ])
        return [
            {**d["_id"], "message": d["message"], "starts": d["starts"],
             "blocks": sum(block is not None for block in d["blocks"])}
            for d in found
        ]

    def failures(self, n: int, *, but: np.ndarray) -> list[dict]:
        """Return at most `n` failed or quarantined blocks with errors, none of the blocks `but`."""
        found = self.documents({"state": {"$in": [FAILED, QUARANTINED]}})
        shown = itertools.islice((d for d in found if not but[tuple(d["index"])]), n)
        return [{"block": d["_id"].removeprefix(self.run + "/"), "state": d["state"],
                 "attempts": d.get("attempts", 0), "error": d.get("error") or {}} for d in shown]


def block_fields(run: str, grid: BlockGrid, block) -> dict:
    """Return what is known of a block before it is done. `offset` is nm, `shape` voxels."""
    return {
        "run": run,
        "index": list(block.index),
        "offset": list(grid.frame.to_roi(block.write_box).offset),
        "shape": list(block.write_box.shape),
    }


def grid_document(grid: BlockGrid) -> dict:
    """Return the block grid as stored in ``runs.grid``; offset nm, block_shape voxels, shape blocks."""
    return {
        "offset": list(grid.frame.offset),
        "voxel_size": list(grid.frame.voxel_size),
        "volume_shape": list(grid.volume_shape),
        "block_shape": list(grid.block_shape),
        "shape": list(grid.shape),
        "n_voxels": math.prod(grid.volume_shape),
    }

