"""The collection ``clefts``: one document per synaptic cleft that partners face."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import groupby

from em_blocks.db.connect import with_patience
from em_blocks.db.synapse_rows import table_of
from em_blocks.db.synapses import ScratchSynapses, SynapseStore
from em_blocks.kernels.synapses import Synapses

_BATCH = 10_000


def prepare_clefts(synapses: SynapseStore) -> None:
    """Make the indexes that find the rows of a cleft, and the clefts of a run."""
    synapses.synapses.create_index([("run", 1), ("cleft", 1)], name="cleft")
    synapses.synapses.database["clefts"].create_index([("run", 1)])


def rows_by_cleft(synapses: SynapseStore) -> Iterator[tuple[int, Synapses]]:
    """The rows of one cleft after the other, in the order of their ids."""
    query = {"run": synapses.run, "cleft": {"$gt": 0}}
    # By the index: nothing is sorted in memory.
    found = synapses.synapses.find(query, sort=[("run", 1), ("cleft", 1)], batch_size=_BATCH)
    for cleft, rows in groupby(found, key=lambda document: document["cleft"]):
        yield cleft, table_of(rows).sorted()


def replace_clefts(synapses: SynapseStore, run: str, documents: Iterable[dict]) -> int:
    """Make `documents` all clefts of a run; how many there are. ``_id`` becomes ``run/cleft``."""
    collection, n = synapses.synapses.database["clefts"], 0
    scratch = isinstance(synapses, ScratchSynapses)
    if not scratch:
        remove_clefts(synapses, run)
    batch: list[dict] = []
    for document in documents:
        batch.append({"_id": f"{run}/{document['cleft']}", "run": run, **document})
        n += 1
        if len(batch) == _BATCH:
            _insert(collection, batch, scratch)
            batch = []
    _insert(collection, batch, scratch)
    return n


def remove_clefts(synapses: SynapseStore, run: str) -> None:
    """Forget all clefts of a run."""
    synapses.synapses.database["clefts"].delete_many({"run": run})


def checksum_of_clefts(synapses: SynapseStore, run: str) -> int:
    """CRC-32 of which clefts there are, and how many partners face each."""
    crc = 0
    chosen = {"cleft": 1, "synapses": 1, "_id": 0}
    for document in synapses.synapses.database["clefts"].find({"run": run}, chosen).sort("cleft", 1):
        crc = zlib.crc32(f"{document['cleft']}:{document['synapses']} ".encode(), crc)
    return crc


def _insert(collection, batch: list[dict], scratch: bool) -> None:
    if batch and not scratch:
        ids = [document["_id"] for document in batch]

        def insert() -> None:
            collection.delete_many({"_id": {"$in": ids}})
            collection.insert_many(batch, ordered=False)

        with_patience(insert)
