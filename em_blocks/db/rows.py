"""Rows of one run in a collection that a schema describes: stored once, replaced as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Generic, NamedTuple

import numpy as np
from pymongo import ReplaceOne, UpdateMany, UpdateOne, WriteConcern
from pymongo.errors import BulkWriteError, DuplicateKeyError

from em_blocks.db.connect import ServerError
from em_blocks.db.documents import RunDocuments
from em_blocks.db.leases import DURABLE
from em_blocks.db.schemas.base import Flags, Index, RowSchema, Table, flags_of
from em_blocks.errors import DatabaseError
from em_blocks.geometry import Roi
from em_blocks.kernels.synapses.table import LARGEST_ID

DUPLICATE_KEY = 11000
_BATCH = 20_000
_GROUP_BATCH = 10_000
_MOST_IDS = 1000


class Outside(NamedTuple):
    """Rows with a position outside of a region."""

    n: int
    id: int
    position: list[float]  # nm (z, y, x), of the first of them


class RowStore(RunDocuments, Generic[Table]):
    """The rows that blocks of one run have stored."""

    schema: RowSchema[Table]

    def of_run(self, run: str) -> RowStore[Table]:
        """Return the rows of another run in the same collection."""
        database = self.collection.database
        return RowStore(
            database.client, database.name, run, self.schema, guard=self._guard,
            outage_s=self._outage_s, scratch=self._scratch,
        )

    def prepare(self, indexes: Sequence[Index] | None = None) -> None:
        super().prepare(indexes)
        if not self._scratch:
            self.id_ranges.create_index("first", unique=True)

    # -- writing --------------------------------------------------------------------------

    def reserve_ids(self, n: int) -> int:
        """Return the first of `n` ids that no other run uses; the same whenever this run asks.

        The first run of a database gets 0, so its ids are what it numbers: its voxels.
        """
        if self._scratch:
            return (self.id_ranges.find_one({"_id": self.run}) or {"first": 0})["first"]
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
        """Replace the range `known` of this run, unless another process was faster."""
        self._guard()
        try:
            if known is None:
                self.id_ranges.insert_one(wanted)
            else:
                self.id_ranges.replace_one(known, wanted)
        except DuplicateKeyError:
            pass  # a worker of this run took a range, or another run this one

    def replace_block(self, block: str, rows: Table, flags: Flags | None = None) -> None:
        """Make `rows` the rows of the block ``zi/yi/xi``, whatever an earlier attempt left.

        Interrupted in between, some rows are missing or of the earlier attempt until the block is
        computed again.
        """
        documents = self.schema.documents(rows, flags or {}, run=self.run, block=block)
        if not self._scratch:
            self.patiently(lambda: self._replace(block, documents))

    def update(self, rows: Table, columns: Sequence[str], *, nulls: bool = False) -> int:
        """Set `columns`, for example ``pre_segment``, of the rows with these ids; return how many exist.

        Unknown values remove the field, or with `nulls` set it to null: looked up, but nothing is there.
        """
        # By the id alone, which is unique: with the run, every update is planned, four times as slow.
        updates = [
            UpdateOne({"_id": id}, change)
            for id, change in self.schema.changes(rows, columns, nulls=nulls)
        ]
        if self._scratch:
            return len(updates)
        return self.patiently(lambda: self._update(updates))

    def replace_values(
        self, by: str, keys: np.ndarray, field: str, values: np.ndarray
    ) -> int:
        """Set `field` of all rows in whose field `by` is one of `keys`; return how many rows changed.

        Only rows that have another value are written, and none is read but by the index.

        Parameters
        ----------
        by, field : str
            Paths in a document, for example ``pre.supervoxel`` and ``pre.segment``.
        keys, values : (n,) int64 arrays
            The value that belongs to each key.
        """
        changes = [
            UpdateMany({"run": self.run, by: {"$in": some}, field: {"$ne": value}},
                       {"$set": {field: value}})
            for value, some in _by_value(keys, values)
        ]
        n = 0
        for start in range(0, 0 if self._scratch else len(changes), _MOST_IDS):
            n += self.patiently(partial(self._modified, changes[start : start + _MOST_IDS]))
        return n

    def unset(self, fields: Sequence[str]) -> None:
        """Remove fields, such as ``pre.segment``, from all rows of the run."""
        present = {"run": self.run, "$or": [{field: {"$exists": True}} for field in fields]}
        if not self._scratch:
            self.collection.update_many(present, {"$unset": dict.fromkeys(fields, "")})

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
        query = {"run": self.run, "block": block}
        return {d["_id"] for d in self.collection.find(query, {"_id": 1}, batch_size=_BATCH)}

    def _delete(self, block: str, ids: list[int], concern: WriteConcern) -> None:
        collection = self.collection.with_options(write_concern=concern)
        for start in range(0, len(ids), _BATCH):
            chosen = {"_id": {"$in": ids[start : start + _BATCH]}, "run": self.run, "block": block}
            collection.delete_many(chosen)

    def _insert(self, documents: list) -> None:
        try:
            if documents:
                self.collection.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            details: Mapping[str, Any] = error.details or {}
            known = {e["keyValue"]["_id"] for e in details["writeErrors"] if _is_duplicate(e)}
            if len(known) < len(details["writeErrors"]) or details["writeConcernErrors"]:
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
            self.collection.bulk_write(replacements, ordered=False)
        except BulkWriteError as error:
            if not any(map(_is_duplicate, (error.details or {})["writeErrors"])):
                raise
            self._refuse_foreign([document["_id"] for document in documents])
            # Another worker of this run was adding the same rows.
            self.collection.bulk_write(replacements, ordered=False)

    def _refuse_foreign(self, ids: list[int]) -> None:
        foreign = self.collection.find_one({"_id": {"$in": ids}, "run": {"$ne": self.run}})
        if foreign is not None:
            raise DatabaseError(
                f"The {self.schema.row} {foreign['_id']} of run {self.run!r} exists already, as one of "
                f"run {foreign.get('run')!r}, which did not reserve its ids. Nothing is overwritten: "
                "remove those rows, or use another 'db_name'."
            )

    def _update(self, updates: list[UpdateOne]) -> int:
        self._guard()
        return self.collection.bulk_write(updates, ordered=False).matched_count if updates else 0

    def _modified(self, changes: list[UpdateMany]) -> int:
        return self.collection.bulk_write(changes, ordered=False).modified_count

    # -- reading --------------------------------------------------------------------------

    def read(self, **filters: Any) -> Table:
        """Return the rows that these filters of the schema (`RowSchema.query`) select, by their ids."""
        query, table = self.query(**filters), self.schema.table
        return self.patiently(lambda: table(self.collection.find(query, batch_size=_BATCH))).sorted()

    def count(self, **filters: Any) -> int:
        """Return how many rows `read` would return."""
        return self.patiently(lambda: self.collection.count_documents(self.query(**filters)))

    def query(self, **filters: Any) -> dict:
        """Return the filter of `read`, as MongoDB takes it."""
        return {"run": self.run, **self.schema.query(**filters)}

    def tables(self, *, rows: int = 200_000) -> Iterator[Table]:
        """Yield all rows in the order of their ids, at most `rows` at a time.

        Every table is a query of its own, so nothing expires however long its use takes. Rows that
        change meanwhile are seen before or after.
        """
        last = -1
        while len(table := self._after(last, rows)):
            yield table
            last = int(table.id[-1])

    def _after(self, id: int, rows: int) -> Table:
        query, table = {"run": self.run, "_id": {"$gt": id}}, self.schema.table
        # By the index of ids: with another one the server would sort all that is left.
        return self.patiently(lambda: table(
            self.collection.find(query, batch_size=_BATCH).sort("_id", 1).hint("_id_").limit(rows)
        ))

    def read_block(self, block: str) -> tuple[Table, dict[str, np.ndarray]]:
        """Return the rows of a block with their flags, in the order of their ids."""
        query = {"run": self.run, "block": block}
        found = self.patiently(lambda: list(self.collection.find(query)))
        found.sort(key=itemgetter("_id"))
        return self.schema.table(found), flags_of(found)

    def groups(self, field: str, *, rows: int = _GROUP_BATCH) -> Iterator[tuple[int, Table]]:
        """Yield every positive value of a field, ascending, with the rows that have it, by their ids.

        Read about `rows` at a time, each time by a query of its own: nothing expires, and a server
        that comes back is asked for what is left. Needs an index on the run and the field.
        """
        last = 0
        while found := self.patiently(partial(self._groups_after, field, last, rows)):
            for last, group in groupby(found, key=itemgetter(field)):
                yield last, self.schema.table(group).sorted()

    def _groups_after(self, field: str, last: int, rows: int) -> list[dict]:
        """Return the rows of the next whole groups: about `rows`."""
        query = {"run": self.run, field: {"$gt": last}}
        # By the index: nothing is sorted in memory.
        order = [("run", 1), (field, 1)]
        found = list(self.collection.find(query, limit=rows, sort=order, batch_size=_GROUP_BATCH))
        if len(found) == rows:
            # The limit may have cut the last of them.
            cut = found[-1][field]
            found = [row for row in found if row[field] != cut]
            found += self.collection.find({"run": self.run, field: cut}, batch_size=_GROUP_BATCH)
        return found

    def runs(self) -> list[str]:
        """Return the runs that have rows in the collection, sorted."""
        return sorted(self.collection.distinct("run"))

    def outside(self, roi: Roi) -> Outside | None:
        """Return which rows have a position outside of a region; None if there are none."""
        beyond = [
            {f"{path}.{axis}": bound}
            for path in self.schema.positions.values()
            for axis, (begin, end) in enumerate(zip(roi.offset, roi.end, strict=True))
            for bound in ({"$lt": begin}, {"$gte": end})
        ]
        return self.patiently(lambda: self._outside(roi, {"run": self.run, "$or": beyond}))

    def _outside(self, roi: Roi, query: dict) -> Outside | None:
        if self.collection.find_one(query, {"_id": 1}) is None:
            return None
        first = self.collection.find_one(query, sort=[("_id", 1)]) or {}
        positions = [value_at(first, path) for path in self.schema.positions.values()]
        wrong = next(p for p in positions if not _within(p, roi))
        return Outside(self.collection.count_documents(query), first["_id"], wrong)

    def positions_without(self, at: str, field: str) -> Iterator[np.ndarray]:
        """Yield in batches where rows lie that lack a field.

        Null is a field: nothing was found there. After an outage all positions are read again, so some
        may come twice.

        Parameters
        ----------
        at : str
            Which of their positions, by its name in the schema.
        field : str
            Path in a document.

        Yields
        ------
        (n, 3) float64 array
            nm (z, y, x).
        """
        place: str = self.schema.positions[at]
        query = {"run": self.run, field: {"$exists": False}}
        found: Iterator[dict] | None = None

        def take() -> list[list[float]]:
            nonlocal found
            if found is None:
                found = self.collection.find(query, {place: 1, "_id": 0}, batch_size=_BATCH)
            try:
                return [value_at(document, place) for document in islice(found, _BATCH)]
            except ServerError:
                found = None  # a server that restarted has forgotten the cursor
                raise

        while batch := self.patiently(take):
            yield np.array(batch)


def value_at(document: dict, path: str) -> Any:
    """Return the value at a path such as ``pre.position``."""
    for name in path.split("."):
        document = document[name]
    return document


def _is_duplicate(write_error: dict) -> bool:
    return write_error["code"] == DUPLICATE_KEY


def _within(position: Sequence[float], roi: Roi) -> bool:
    return all(a <= p < b for p, a, b in zip(position, roi.offset, roi.end, strict=True))


def _by_value(keys: np.ndarray, values: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Yield every value with at most `_MOST_IDS` of its keys."""
    order = np.argsort(values, kind="stable")
    names, begins = np.unique(values[order], return_index=True)
    for name, rows in zip(names.tolist(), np.split(order, begins[1:])):
        for start in range(0, len(rows), _MOST_IDS):
            yield name, keys[rows[start : start + _MOST_IDS]].tolist()
