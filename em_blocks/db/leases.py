"""The lease of a run, which makes one process its scheduler, and the workers that it admits."""

from __future__ import annotations

from datetime import datetime

import pymongo
from pymongo import ReturnDocument, UpdateOne, WriteConcern

from em_blocks.errors import CommitRefusedError

# w=1 loses acknowledged blocks when mongod is killed; measured: 476 of 33,547.
DURABLE = WriteConcern(w="majority", j=True)

LEASE_TIMEOUT_S = 30.0
WORKER_TIMEOUT_S = 15.0

WORKING = "working"


class LeasedRun:
    """The lease and the workers of one run.

    Parameters
    ----------
    client : pymongo.MongoClient
        Of a server that answered.
    db_name : str
        Database of the collections ``runs``, ``blocks``, ``attempts`` and ``workers``.
    run : str
        Name of the run.
    """

    def __init__(self, client: pymongo.MongoClient, db_name: str, run: str):
        database = client.get_database(db_name, write_concern=DURABLE)
        self.client, self.database, self.run = client, database, run
        self.runs, self.blocks = database["runs"], database["blocks"]
        self.attempts, self.workers = database["attempts"], database["workers"]

    def now(self) -> datetime:
        """Time of the database server: clocks of cluster nodes differ."""
        options = self.client.codec_options  # commands ignore them otherwise, and time zones with them
        return self.client.admin.command("hello", codec_options=options)["localTime"]

    # -- lease ----------------------------------------------------------------------

    def take_lease(self, owner: str, *, from_owner: str | None = None) -> int | None:
        """Become the run's only scheduler.

        Parameters
        ----------
        owner : str
            Name of this scheduler.
        from_owner : str, optional
            A previous owner known to be dead, whose heartbeat need not have run out.

        Returns
        -------
        int or None
            The new epoch; None if another scheduler is alive.
        """
        limit = LEASE_TIMEOUT_S * 1000
        free = {"$or": [
            {"lease.owner": None},
            {"lease.owner": from_owner},
            {"$expr": {"$lt": ["$lease.heartbeat", {"$subtract": ["$$NOW", limit]}]}},
        ]}
        taken = self.runs.find_one_and_update(
            {"_id": self.run, **free},
            [{"$set": {
                "lease": {"owner": owner, "heartbeat": "$$NOW",
                          "epoch": {"$add": ["$lease.epoch", 1]}},
                "state": "running", "updated": "$$NOW",
            }}],
            return_document=ReturnDocument.AFTER,
        )
        return taken and taken["lease"]["epoch"]

    def heartbeat(self, epoch: int) -> bool:
        """Show that the scheduler of `epoch` lives; False if it was replaced."""
        found = self.runs.update_one(
            {"_id": self.run, "lease.epoch": epoch}, [{"$set": {"lease.heartbeat": "$$NOW"}}]
        )
        return found.matched_count == 1

    def release(self, epoch: int, *, state: str, summary: dict) -> None:
        """End the lease of `epoch` and store how the run stands."""
        self.workers.update_many(
            {"run": self.run, "epoch": {"$lte": epoch}, "state": WORKING},
            [{"$set": {"state": "left", "reason": "the run ended", "left": "$$NOW", "blocks": []}}],
        )
        self.runs.update_one(
            {"_id": self.run, "lease.epoch": epoch},
            [{"$set": {"lease.owner": None, "state": state, "summary": {"$literal": summary},
                       "updated": "$$NOW"}}],
        )

    def check_epoch(self, epoch: int) -> None:
        """Raise `CommitRefusedError` if the scheduler of `epoch` was replaced."""
        lease = (self.runs.find_one({"_id": self.run}, {"lease.epoch": 1}) or {}).get("lease", {})
        if lease.get("epoch") != epoch:
            raise CommitRefusedError(
                f"Run {self.run!r} belongs to epoch {lease.get('epoch')} now, this worker to epoch "
                f"{epoch}: its scheduler was replaced, so its block is not recorded."
            )

    # -- workers --------------------------------------------------------------------

    def admit_worker(self, document: dict) -> None:
        """List a worker as working, durably: without that its commits are refused."""
        self.workers.update_one(
            {"_id": f"{self.run}/{document['worker']}"},
            [{"$set": {**_literal(document), "run": self.run, "joined": "$$NOW", "left": None,
                       "heartbeat": "$$NOW"}}],
            upsert=True,
        )

    def update_workers(self, documents: list[dict]) -> None:
        """Write how admitted workers stand; the heartbeat of those that work."""
        updates = []
        for document in documents:
            seen = "heartbeat" if document["state"] == WORKING else "left"
            updates.append(UpdateOne(
                {"_id": f"{self.run}/{document['worker']}"},
                [{"$set": {**_literal(document), seen: "$$NOW"}}],
            ))
        self.workers.bulk_write(updates, ordered=False)

    def check_worker(self, worker: str, epoch: int) -> None:
        """Raise `CommitRefusedError` unless the scheduler of `epoch` counts on a worker."""
        self.check_epoch(epoch)
        wanted = {"state": 1, "epoch": 1, "reason": 1}
        listed = self.workers.find_one({"_id": f"{self.run}/{worker}"}, wanted)
        if listed is None or listed["epoch"] != epoch:
            raise CommitRefusedError(
                f"The scheduler of run {self.run!r} has not admitted the worker {worker}, so its "
                "block is not recorded."
            )
        if listed["state"] != WORKING:
            raise CommitRefusedError(
                f"The scheduler of run {self.run!r} no longer counts on the worker {worker} "
                f"({listed['state']}: {listed['reason']}). Its blocks were given to others, so this one "
                "is not recorded."
            )

    def record_loss(self, block: str, worker: dict, error: dict) -> None:
        """Record an attempt that its worker could not record itself; recording it again adds nothing."""
        key = f"{self.run}/{block}/{worker['worker']}/{error['type']}"
        self.attempts.replace_one({"_id": key}, {
            "run": self.run, "block": block, "epoch": worker["epoch"], "worker": worker["worker"],
            "host": worker["host"], "device": worker["device"], "finished": self.now(), "error": error,
        }, upsert=True)

    def running(self) -> int:
        """Return the number of blocks that living workers hold."""
        alive = {"$gt": ["$heartbeat", {"$subtract": ["$$NOW", WORKER_TIMEOUT_S * 1000]}]}
        found = self.workers.aggregate([
            {"$match": {"run": self.run, "state": WORKING, "$expr": alive}},
            {"$group": {"_id": None, "n": {"$sum": {"$size": "$blocks"}}}},
        ])
        return next(iter(found), {"n": 0})["n"]


def _literal(document: dict) -> dict:
    """Return values for an update by pipeline, in which strings with a dollar would be expressions."""
    return {key: {"$literal": value} for key, value in document.items()}
