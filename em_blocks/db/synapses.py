"""Synaptic partners in MongoDB: the rows of one run in the collection ``synapses``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Self, TypeVar

import numpy as np
import pymongo
from pymongo import ReplaceOne, UpdateOne, WriteConcern
from pymongo.errors import BulkWriteError, DuplicateKeyError

from em_blocks.db.connect import OUTAGE_S, with_patience
from em_blocks.db.runs import DURABLE
from em_blocks.db.synapse_rows import Flags, changes_of, documents_of, flags_of, table_of
from em_blocks.errors import DatabaseError
from em_blocks.geometry import Roi
from em_blocks.kernels.synapses.table import LARGEST_ID, Synapses

Site = Literal["post", "pre", "either"]
Ids = int | Sequence[int] | np.ndarray
Result = TypeVar("Result")

DUPLICATE_KEY = 11000
_BATCH = 20_000

INDEXES = {
    "post.segment": ["post.segment"],
    "pre.segment": ["pre.segment"],
    "segments": ["pre.segment", "post.segment"],
    "block": ["run", "block"],
    "post.position": [f"post.position.{axis}" for axis in range(3)],
    "pre.position": [f"pre.position.{axis}" for axis in range(3)],
}
# Sites that nobody has mapped have no segment, and cost these indexes nothing.
_SPARSE = {"post.segment", "pre.segment", "segments"}


class SynapseStore:
    """The synapses of one run.

    Parameters
    ----------
    client : pymongo.MongoClient
        Of a server that answered.
    db_name : str
        Database of the collection ``synapses``.
    run : str
        Name of the run that detects them.
    guard : function, optional
        Called before every change; raises where this process must not write any more.
    outage_s : float
        How long every call waits for a database that is away, before it fails.
    """

    def __init__(
        self, client: pymongo.MongoClient, db_name: str, run: str, *,
        guard: Callable[[], None] = lambda: None, outage_s: float = OUTAGE_S,
    ):
        database = client.get_database(db_name, write_concern=DURABLE)
        self.run, self._guard, self._outage_s = run, guard, outage_s
        self.synapses, self.id_ranges = database["synapses"], database["id_ranges"]

    def of_run(self, run: str) -> Self:
        """The synapses of another run in the same database."""
        database = self.synapses.database
        return type(self)(
            database.client, database.name, run, guard=self._guard, outage_s=self._outage_s
        )

    def patiently(self, call: Callable[[], Result]) -> Result:
        """`call`, repeated while the database is away; only for what may be done twice."""
        return with_patience(call, self._outage_s)

    def prepare(self) -> None:
        """Make the indexes, where they do not exist."""
        for name, keys in INDEXES.items():
            options = {"sparse": True} if name in _SPARSE else {}
            self.synapses.create_index([(key, 1) for key in keys], name=name, **options)
        self.id_ranges.create_index("first", unique=True)

    # -- writing --------------------------------------------------------------------------

    def reserve_ids(self, n: int) -> int:
        """First of `n` ids that no other run uses; the same whenever this run asks.

        The first run of a database gets 0, so its ids are what it numbers: its voxels.
        """
        return self.patiently(lambda: self._reserve(n))

    def _reserve(self, n: int) -> int:
        while True:
            known = self.id_ranges.find_one({"_id": self.run})
            if known is not None and known["size"] == n:
                return known["first"]
            last = self.id_ranges.find_one(sort=[("first", -1)])
            first = last["first"] + last["size"] if last else 0
            if first + n - 1 > LARGEST_ID:
                raise DatabaseError(
                    f"Run {self.run!r} needs {n} ids, but the runs of this database have used up those "
                    "that fit into 63 bits. Use another 'db_name' for it."
                )
            self._take_range(known, {"_id": self.run, "first": first, "size": n})

    def _take_range(self, known: dict | None, wanted: dict) -> None:
        """Replace the range `known` of this run, unless somebody else was faster."""
        self._guard()
        try:
            if known is None:
                self.id_ranges.insert_one(wanted)
            else:
                self.id_ranges.replace_one(known, wanted)
        except DuplicateKeyError:
            pass  # a worker of this run took a range, or another run this one

    def replace_block(self, block: str, synapses: Synapses, flags: Flags | None = None) -> None:
        """Make `synapses` the rows of the block ``zi/yi/xi``, whatever an earlier attempt left.

        Interrupted in between, some rows are missing or of the earlier attempt until the block is
        done again.
        """
        documents = documents_of(synapses, flags or {}, run=self.run, block=block)
        self.patiently(lambda: self._replace(block, documents))

    def update(self, synapses: Synapses, columns: Sequence[str], *, nulls: bool = False) -> int:
        """Set `columns` of the rows with these ids, for example ``pre_segment``; how many there were.

        `UNMAPPED` removes the field, or with `nulls` sets it to null: looked up, but there is nothing.
        """
        # By the id alone, which is unique: with the run, every update is planned, four times as slow.
        updates = [
            UpdateOne({"_id": id}, change) for id, change in changes_of(synapses, columns, nulls=nulls)
        ]
        return self.patiently(lambda: self._update(updates))

    def remove(self) -> None:
        """Delete all rows of the run."""
        self.synapses.delete_many({"run": self.run})

    def _replace(self, block: str, documents: list) -> None:
        # Nothing is deleted that is written again: a deletion which a cut link held back, and
        # delivers when the block was long done in another way, must not take its rows.
        self._guard()
        stored = self._ids_of(block)
        wanted = {document["_id"] for document in documents}
        # The journal keeps the order: rows that are durable make the deletion before them durable.
        self._delete(block, sorted(stored - wanted), DURABLE if not documents else WriteConcern(w=1))
        for start in range(0, len(documents), _BATCH):
            batch = documents[start : start + _BATCH]
            self._overwrite([document for document in batch if document["_id"] in stored])
            self._insert([document for document in batch if document["_id"] not in stored])

    def _ids_of(self, block: str) -> set[int]:
        found = self.synapses.find({"run": self.run, "block": block}, {"_id": 1}, batch_size=_BATCH)
        return {document["_id"] for document in found}

    def _delete(self, block: str, ids: list[int], concern: WriteConcern) -> None:
        synapses = self.synapses.with_options(write_concern=concern)
        for start in range(0, len(ids), _BATCH):
            chosen = {"_id": {"$in": ids[start : start + _BATCH]}, "run": self.run, "block": block}
            synapses.delete_many(chosen)

    def _insert(self, documents: list) -> None:
        try:
            if documents:
                self.synapses.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            known = {e["keyValue"]["_id"] for e in error.details["writeErrors"] if _is_duplicate(e)}
            if len(known) < len(error.details["writeErrors"]) or error.details["writeConcernErrors"]:
                raise
            self._overwrite([document for document in documents if document["_id"] in known])

    def _overwrite(self, documents: list) -> None:
        """Replace rows of this run with the same ids, also those of a block that no longer exists."""
        replacements = [
            ReplaceOne({"_id": document["_id"], "run": self.run}, document, upsert=True)
            for document in documents
        ]
        if not replacements:
            return
        try:
            self.synapses.bulk_write(replacements, ordered=False)
        except BulkWriteError as error:
            if not any(map(_is_duplicate, error.details["writeErrors"])):
                raise
            self._refuse_foreign([document["_id"] for document in documents])
            # Somebody else of this run was adding the same rows.
            self.synapses.bulk_write(replacements, ordered=False)

    def _refuse_foreign(self, ids: list[int]) -> None:
        foreign = self.synapses.find_one({"_id": {"$in": ids}, "run": {"$ne": self.run}})
        if foreign is not None:
            raise DatabaseError(
                f"The synapse {foreign['_id']} of run {self.run!r} exists already, as one of run "
                f"{foreign.get('run')!r}, which did not reserve its ids. Nothing is overwritten: remove "
                "those rows, or use another 'db_name'."
            )

    def _update(self, updates: list[UpdateOne]) -> int:
        self._guard()
        return self.synapses.bulk_write(updates, ordered=False).matched_count if updates else 0

    # -- reading --------------------------------------------------------------------------

    def read(
        self, *, block: str | None = None, roi: Roi | None = None, at: Site = "post",
        pre_segment: Ids | None = None, post_segment: Ids | None = None,
        min_score: float | None = None,
    ) -> Synapses:
        """The rows for which all of this holds, in the order of their ids.

        Parameters
        ----------
        block : str, optional
            Of this block, ``zi/yi/xi``.
        roi : Roi, optional
            With their `at` in this region, its end excluded; nm (z, y, x).
        at : {"post", "pre", "either"}
            Which site `roi` asks about.
        pre_segment, post_segment : int or sequence of int, optional
            With one of these segments at the site.
        min_score : float, optional
            With at least this score.
        """
        query = self.query(
            block=block, roi=roi, at=at, pre_segment=pre_segment, post_segment=post_segment,
            min_score=min_score,
        )
        return self.patiently(lambda: table_of(self.synapses.find(query, batch_size=_BATCH))).sorted()

    def tables(self, *, rows: int = 200_000) -> Iterator[Synapses]:
        """All rows in the order of their ids, at most so many at a time.

        Every table is a query of its own, so nothing expires however long its use takes. Rows that
        change meanwhile are seen before or after.
        """
        last = -1
        while True:
            table = self.patiently(lambda last=last: self._after(last, rows))
            if not len(table):
                return
            yield table
            last = int(table.id[-1])

    def _after(self, id: int, rows: int) -> Synapses:
        found = self.synapses.find({"run": self.run, "_id": {"$gt": id}}, batch_size=_BATCH)
        # By the index of ids: with another one the server would sort all that is left.
        return table_of(found.sort("_id", 1).hint("_id_").limit(rows))

    def read_block(self, block: str) -> tuple[Synapses, Flags]:
        """The rows of a block with their flags, in the order of their ids."""
        query = {"run": self.run, "block": block}
        found = self.patiently(lambda: list(self.synapses.find(query)))
        found.sort(key=lambda document: document["_id"])
        return table_of(found), flags_of(found)

    def count(self, **filters) -> int:
        """How many rows `read` would give."""
        return self.patiently(lambda: self.synapses.count_documents(self.query(**filters)))

    def query(
        self, *, block: str | None = None, roi: Roi | None = None, at: Site = "post",
        pre_segment: Ids | None = None, post_segment: Ids | None = None,
        min_score: float | None = None,
    ) -> dict:
        """The filter of `read`, as MongoDB takes it."""
        query: dict = {"run": self.run}
        if block is not None:
            query["block"] = block
        if roi is not None:
            query |= _either(roi) if at == "either" else _within(roi, at)
        for name, segments in (("pre.segment", pre_segment), ("post.segment", post_segment)):
            if segments is not None:
                query[name] = _one_of(segments)
        if min_score is not None:
            query["score"] = {"$gte": min_score}
        return query


class ScratchSynapses(SynapseStore):
    """Reads the synapses of a run, but keeps no change: for probes and replays."""

    def prepare(self) -> None: ...

    def reserve_ids(self, n: int) -> int:
        return (self.id_ranges.find_one({"_id": self.run}) or {"first": 0})["first"]

    def remove(self) -> None: ...

    def _replace(self, block: str, documents: list) -> None: ...

    def _update(self, updates: list) -> int:
        return len(updates)


def _is_duplicate(write_error: dict) -> bool:
    return write_error["code"] == DUPLICATE_KEY


def _within(roi: Roi, site: str) -> dict:
    return {
        f"{site}.position.{axis}": {"$gte": begin, "$lt": end}
        for axis, (begin, end) in enumerate(zip(roi.offset, roi.end, strict=True))
    }


def _either(roi: Roi) -> dict:
    return {"$or": [_within(roi, "post"), _within(roi, "pre")]}


def _one_of(ids: Ids) -> int | dict:
    return {"$in": np.asarray(ids).tolist()} if np.ndim(ids) else int(ids)
