"""The collection ``clefts``: one document per synaptic cleft that partners face."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from operator import itemgetter

from pymongo import ReplaceOne

from em_blocks.db.synapse_rows import table_of
from em_blocks.db.synapses import ScratchSynapses, SynapseStore
from em_blocks.kernels.synapses.table import Synapses

_BATCH = 10_000


def prepare_clefts(synapses: SynapseStore) -> None:
    """Make the indexes that find the rows of a cleft, and the clefts of a run."""
    synapses.synapses.create_index([("run", 1), ("cleft", 1)], name="cleft")
    synapses.synapses.database["clefts"].create_index([("run", 1)])


def rows_by_cleft(synapses: SynapseStore, *, rows: int = _BATCH) -> Iterator[tuple[int, Synapses]]:
    """The rows of one cleft after the other, in the order of their ids.

    Read about `rows` at a time, each time by a query of its own: nothing expires, and a server that
    comes back is asked for what is left.
    """
    last = 0
    while found := synapses.patiently(lambda last=last: _clefts_after(synapses, last, rows)):
        for last, group in groupby(found, key=itemgetter("cleft")):
            yield last, table_of(group).sorted()


def _clefts_after(synapses: SynapseStore, last: int, rows: int) -> list[dict]:
    """The rows of the next clefts, whole ones: about so many."""
    query = {"run": synapses.run, "cleft": {"$gt": last}}
    # By the index: nothing is sorted in memory.
    order = {"sort": [("run", 1), ("cleft", 1)], "batch_size": _BATCH}
    found = list(synapses.synapses.find(query, limit=rows, **order))
    if len(found) == rows:
        # The limit may have cut the last of them.
        cut = found[-1]["cleft"]
        found = [row for row in found if row["cleft"] != cut]
        found += synapses.synapses.find({"run": synapses.run, "cleft": cut}, batch_size=_BATCH)
    return found


def replace_clefts(synapses: SynapseStore, run: str, documents: Iterable[dict]) -> int:
    """Make `documents` all clefts of a run; how many there are. ``_id`` becomes ``run/cleft``."""
    scratch, kept = isinstance(synapses, ScratchSynapses), set()
    named = ({"_id": f"{run}/{document['cleft']}", "run": run, **document} for document in documents)
    while batch := list(islice(named, _BATCH)):
        kept.update(document["cleft"] for document in batch)
        if not scratch:
            synapses.patiently(lambda batch=batch: _write(synapses, batch))
    if not scratch:
        synapses.patiently(lambda: _delete_others(synapses, run, kept))
    return len(kept)


def remove_clefts(synapses: SynapseStore, run: str) -> None:
    """Forget all clefts of a run."""
    synapses.synapses.database["clefts"].delete_many({"run": run})


def checksum_of_clefts(synapses: SynapseStore, run: str) -> int:
    """CRC-32 of which clefts there are, and how many partners face each."""
    return synapses.patiently(lambda: _checksum(synapses, run))


def _checksum(synapses: SynapseStore, run: str) -> int:
    crc = 0
    chosen = {"cleft": 1, "synapses": 1, "_id": 0}
    for document in synapses.synapses.database["clefts"].find({"run": run}, chosen).sort("cleft", 1):
        crc = zlib.crc32(f"{document['cleft']}:{document['synapses']} ".encode(), crc)
    return crc


def _write(synapses: SynapseStore, batch: list[dict]) -> None:
    updates = [ReplaceOne({"_id": document["_id"]}, document, upsert=True) for document in batch]
    synapses.synapses.database["clefts"].bulk_write(updates, ordered=False)


def _delete_others(synapses: SynapseStore, run: str, kept: set[int]) -> None:
    """Delete the clefts of a run that are not among `kept`."""
    collection = synapses.synapses.database["clefts"]
    found = collection.find({"run": run}, {"cleft": 1}, batch_size=_BATCH)
    others = [document["_id"] for document in found if document["cleft"] not in kept]
    for start in range(0, len(others), _BATCH):
        collection.delete_many({"_id": {"$in": others[start : start + _BATCH]}})
