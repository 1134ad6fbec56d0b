"""Documents of one run in a collection that a schema describes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import pymongo
from pymongo import ReplaceOne

from em_blocks.db.connect import OUTAGE_S, with_patience
from em_blocks.db.leases import DURABLE
from em_blocks.db.schemas.base import DocumentSchema, Index

Result = TypeVar("Result")

_BATCH = 10_000


class RunDocuments:
    """What one run has in one collection.

    Parameters
    ----------
    client : pymongo.MongoClient
        Of a server that answered.
    db_name : str
    run : str
        Name of the run that the documents belong to.
    schema : DocumentSchema or RowSchema
    guard : function, optional
        Called before every change; raises where this process must not write any more.
    outage_s : float
        How long every call waits for an unavailable database before it fails.
    scratch : bool
        Read only: accept changes but store none, for probes and replays.
    """

    def __init__(
        self, client: pymongo.MongoClient, db_name: str, run: str, schema: Any, *,
        guard: Callable[[], None] = lambda: None, outage_s: float = OUTAGE_S, scratch: bool = False,
    ):
        database = client.get_database(db_name, write_concern=DURABLE)
        self.run, self.schema = run, schema
        self.collection, self.id_ranges = database[schema.collection], database["id_ranges"]
        self._guard, self._outage_s, self._scratch = guard, outage_s, scratch

    def patiently(self, call: Callable[[], Result]) -> Result:
        """Repeat `call` while the database is unavailable; only for what may be done twice."""
        return with_patience(call, self._outage_s)

    def prepare(self, indexes: Sequence[Index] | None = None) -> None:
        """Make these indexes where they do not exist; by default those of the schema."""
        if self._scratch:
            return
        for name, keys, sparse in self.schema.indexes if indexes is None else indexes:
            options: dict[str, Any] = {"sparse": True} if sparse else {}
            self.collection.create_index([(key, 1) for key in keys], name=name, **options)

    def remove(self) -> None:
        """Delete all documents of the run."""
        if not self._scratch:
            self.collection.delete_many({"run": self.run})

    def is_empty(self) -> bool:
        """Return whether the run has nothing in the collection."""
        return self.collection.find_one({"run": self.run}, {"_id": 1}) is None


class DocumentStore(RunDocuments):
    """Documents that a run as a whole has in one collection."""

    schema: DocumentSchema

    def read(self, fields: Sequence[str]) -> list[dict]:
        """Return these fields of all documents, in the order of their keys."""
        chosen, order = {"_id": 0} | dict.fromkeys(fields, 1), self.schema.key
        return self.patiently(
            lambda: list(self.collection.find({"run": self.run}, chosen).sort(order, 1))
        )

    def replace_all(self, documents: Iterable[dict]) -> int:
        """Make `documents` all that the run has, and return how many there are."""
        kept: set[Any] = set()
        key = self.schema.key
        named = ({"_id": f"{self.run}/{d[key]}", "run": self.run, **d} for d in documents)
        while batch := list(islice(named, _BATCH)):
            kept.update(document[key] for document in batch)
            updates = [ReplaceOne({"_id": d["_id"]}, d, upsert=True) for d in batch]
            if not self._scratch:
                self._guard()
                self.patiently(partial(self.collection.bulk_write, updates, ordered=False))
        if not self._scratch:
            self.patiently(lambda: self._delete_others(kept))
        return len(kept)

    def _delete_others(self, kept: set[Any]) -> None:
        key = self.schema.key
        found = self.collection.find({"run": self.run}, {key: 1}, batch_size=_BATCH)
        others = [document["_id"] for document in found if document[key] not in kept]
        for start in range(0, len(others), _BATCH):
            self.collection.delete_many({"_id": {"$in": others[start : start + _BATCH]}})
