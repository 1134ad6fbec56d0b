"""Trainings, their curves and the predictions made with them, in MongoDB.

Three collections of the run database: ``trainings`` and ``predictions``, whose ``_id`` are the numbers
1, 2, ..., and ``metrics``, a document per `CHUNK` points of a curve (``_id`` "training/name/chunk").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument, UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError

from em_blocks.db.leases import DURABLE
from em_blocks.db.problems import not_writable
from em_blocks.db.trainings.series import Series
from em_blocks.errors import DatabaseError

RUNNING, DEAD = "running", "dead"
DEAD_AFTER_S = 60.0
"""A running training that was silent for so long is dead: it shows that it lives every 10 s."""

_LARGEST_INTEGER = 2**63 - 1
_STARTS = 2**32  # revisions of one start
_DUPLICATE = 11000
_FORGOTTEN = "forgotten"


class TrainingStore:
    """The run database.

    Calls may be repeated while the server is unavailable, and one that arrives late changes nothing:
    every document has a revision, and never becomes older.

    Parameters
    ----------
    database : pymongo.Database
    """

    def __init__(self, database: Database):
        self.database = database
        self.trainings = database.get_collection("trainings", write_concern=DURABLE)
        self.predictions = database.get_collection("predictions", write_concern=DURABLE)
        self.series = database.get_collection("metrics", write_concern=DURABLE)

    def prepare(self) -> None:
        """Make the indexes; this also proves that the database can be written."""
        try:
            self.trainings.create_index([("uid", 1)], unique=True)
            self.predictions.create_index([("key", 1)], unique=True)
            self.predictions.create_index([("training.uid", 1)])
            self.series.create_index([("training", 1), ("name", 1), ("chunk", 1)])
        except PyMongoError as error:
            raise DatabaseError(not_writable(self.database, error)) from error

    # -- written by trainings -------------------------------------------------------

    def begin(self, uid: str) -> tuple[int, int]:
        """Begin or continue a training.

        Parameters
        ----------
        uid : str
            Its identity, the same in every database and folder.

        Returns
        -------
        number : int
            Its `_id`: that which it has, or the next one.
        revision : int
            The first of this start; those of later starts are higher.
        """
        number = self._number(self.trainings, {"uid": uid}, {"starts_here": 0, "revision": 0})
        found: Any = self.trainings.find_one_and_update(
            {"_id": number}, {"$inc": {"starts_here": 1}}, projection={"starts_here": 1},
            return_document=ReturnDocument.AFTER,
        )
        return number, found["starts_here"] * _STARTS

    def save(self, number: int, document: dict, revision: int) -> None:
        """Replace what the document of a training says, unless that is of a later revision."""
        self.trainings.update_one(
            {"_id": number, "revision": {"$lt": revision}},
            [{"$replaceWith": {"$mergeObjects": [
                "$$ROOT",
                {"$literal": storable(document) | {"revision": revision}},
                {"heartbeat": "$$NOW", "created": {"$ifNull": ["$created", "$$NOW"]}},
            ]}}],
        )

    def beat(self, number: int) -> None:
        """Show that a training lives."""
        self.trainings.update_one({"_id": number}, [{"$set": {"heartbeat": "$$NOW"}}])

    def note(self, number: int, name: str, value: Any) -> None:
        """Add what others found out about a training, for example the scores of its checkpoints."""
        self.trainings.update_one({"_id": number}, {"$set": {f"notes.{name}": storable(value)}})

    def save_chunks(
        self, number: int, chunks: Mapping[tuple[str, int], Series], revision: int
    ) -> None:
        """Store pieces of curves by name and index, unless those stored are of a later revision."""
        updates = [
            UpdateOne(
                {"_id": f"{number}/{name}/{index}", "revision": {"$lt": revision}},
                {"$set": {
                    "training": number, "name": name, "chunk": index, "revision": revision,
                    "steps": chunk.steps, "values": chunk.values,
                    "times": [datetime.fromtimestamp(t).astimezone() for t in chunk.times],
                }},
                upsert=True,
            )
            for (name, index), chunk in chunks.items()
        ]
        if updates:
            _ignoring_older(lambda: self.series.bulk_write(updates, ordered=False))

    def drop_chunks_before(self, number: int, revision: int) -> None:
        """Delete the pieces of curves that are older than a start of the training."""
        self.series.delete_many({"training": number, "revision": {"$lt": revision}})

    def forget(self, number: int) -> None:
        """Delete the document of a training, its curves, and the documents of its predictions.

        Its number is never given again. A call that was interrupted is simply repeated.
        """
        found = self.trainings.find_one({"_id": number}, {"uid": 1})
        if found is None:
            return
        self.predictions.delete_many({"training.uid": found["uid"]})
        self.series.delete_many({"training": number})
        kept = {"uid": f"forgotten {number}", _FORGOTTEN: True}
        self.trainings.replace_one({"_id": number}, kept)

    # -- written by predictions -----------------------------------------------------

    def save_prediction(self, key: str, document: dict) -> int:
        """Store a prediction, replacing one of the same key; returns its `_id`."""
        number = self._number(self.predictions, {"key": key}, {})
        self.predictions.update_one(
            {"_id": number},
            [{"$set": {**{k: {"$literal": v} for k, v in storable(document).items()},
                       "updated": "$$NOW", "created": {"$ifNull": ["$created", "$$NOW"]}}}],
        )
        return number

    # -- read -----------------------------------------------------------------------

    def training(self, number: int) -> dict | None:
        """Return the document of a training with its present state, or None."""
        found = self.trainings.find_one({"_id": number, _FORGOTTEN: {"$exists": False}})
        return found and self._with_state(found, self._now())

    def training_of(self, uid: str) -> dict | None:
        """Return the document of the training `uid`, or None."""
        found = self.trainings.find_one({"uid": uid})
        return found and self._with_state(found, self._now())

    def recorded_trainings(self) -> list[dict]:
        """Return the documents of all trainings that have begun, without their histories."""
        now = self._now()
        begun, rest = {"config": {"$exists": True}}, {"history": 0, "starts": 0}
        found = self.trainings.find(begun, rest).sort("_id", 1)
        return [self._with_state(document, now) for document in found]

    def predictions_of(self, uid: str) -> list[dict]:
        """Return the documents of predictions made with the training `uid`."""
        return list(self.predictions.find({"training.uid": uid}).sort("_id", 1))

    def curves(self, number: int, names: Iterable[str] | None = None) -> dict[str, Series]:
        """Return the curves of a training (all, or `names`) by name."""
        query: dict[str, Any] = {"training": number}
        if names is not None:
            query["name"] = {"$in": list(names)}
        pieces: dict[str, list[Series]] = {}
        for chunk in self.series.find(query).sort([("name", 1), ("chunk", 1)]):
            times = [time.timestamp() for time in chunk["times"]]
            pieces.setdefault(chunk["name"], []).append(
                Series(chunk["steps"], chunk["values"], times)
            )
        return {name: Series.joined(chunks) for name, chunks in pieces.items()}

    def _with_state(self, document: dict, now: datetime) -> dict:
        silent = (now - document["heartbeat"]).total_seconds() if "heartbeat" in document else 0.0
        dead = document.get("state") == RUNNING and silent > DEAD_AFTER_S
        return document | {"state": DEAD} if dead else document

    def _now(self) -> datetime:
        client = self.database.client
        return client.admin.command("hello", codec_options=client.codec_options)["localTime"]

    def _number(self, collection: Any, identity: dict, new: dict) -> int:
        """Return the `_id` of the document with `identity`; a new one gets the next number."""
        while True:
            if found := collection.find_one(identity, {"_id": 1}):
                return found["_id"]
            last = collection.find_one({}, {"_id": 1}, sort=[("_id", -1)])
            number = 1 + (last["_id"] if last else 0)
            try:
                collection.insert_one({"_id": number, **identity, **new})
            except DuplicateKeyError:  # another process took the number, or this call was repeated
                continue


def storable(value: Any) -> Any:
    """Return a JSON value with integers beyond those of MongoDB as text."""
    if isinstance(value, dict):
        return {key: storable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable(item) for item in value]
    is_large = isinstance(value, int) and abs(value) > _LARGEST_INTEGER
    return str(value) if is_large else value


def _ignoring_older(write: Any) -> None:
    """Call `write`; upserts that are older than what is stored collide with it, and change nothing."""
    try:
        write()
    except BulkWriteError as error:
        if error.details["writeConcernErrors"] or any(
            one["code"] != _DUPLICATE for one in error.details["writeErrors"]
        ):
            raise
