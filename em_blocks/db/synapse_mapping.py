"""What lies at the sites of stored synapses: which are mapped, and changes by supervoxel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from pymongo import UpdateMany

from em_blocks.db.connect import ServerError
from em_blocks.db.synapses import SynapseStore
from em_blocks.geometry import Roi

SIDES = ("pre", "post")
_BATCH = 20_000
_MOST_IDS = 1000


class Outside(NamedTuple):
    """Sites that a volume does not cover."""

    n: int
    id: int
    position: list[float]  # nm (z, y, x), of the first of them


def prepare_mapping(synapses: SynapseStore) -> None:
    """Make the indexes that find unmapped sites, and sites by supervoxel."""
    for side in SIDES:
        # Not sparse: a site without the field is what a query for null must find at once.
        path = f"{side}.supervoxel"
        synapses.synapses.create_index([("run", 1), (path, 1)], name=path)


def prepare_skeletons(synapses: SynapseStore) -> None:
    """Make the indexes that find sites by skeleton."""
    for side in SIDES:
        path = f"{side}.skeleton"
        synapses.synapses.create_index([(path, 1)], name=path, sparse=True)


def sites_outside(synapses: SynapseStore, roi: Roi) -> Outside | None:
    """The sites, presynaptic or postsynaptic, that lie outside of a region; None if there are none."""
    beyond = [
        {f"{side}.position.{axis}": bound}
        for side in SIDES
        for axis, (begin, end) in enumerate(zip(roi.offset, roi.end, strict=True))
        for bound in ({"$lt": begin}, {"$gte": end})
    ]
    return synapses.patiently(lambda: _outside(synapses, roi, {"run": synapses.run, "$or": beyond}))


def _outside(synapses: SynapseStore, roi: Roi, query: dict) -> Outside | None:
    if synapses.synapses.find_one(query, {"_id": 1}) is None:
        return None
    first = synapses.synapses.find_one(query, sort=[("_id", 1)])
    positions = [first[side]["position"] for side in SIDES]
    wrong = next(p for p in positions if not _within(p, roi))
    return Outside(synapses.synapses.count_documents(query), first["_id"], wrong)


def _within(position: Sequence[float], roi: Roi) -> bool:
    return all(a <= p < b for p, a, b in zip(position, roi.offset, roi.end, strict=True))


def sites_without(synapses: SynapseStore, side: str, path: str) -> Iterator[np.ndarray]:
    """Positions (n, 3) nm (z, y, x) of the sites of rows that lack the field `path`, in batches.

    Null is a field: nothing was found there. After an outage all positions are read again, so some
    may come twice.
    """
    place, found = f"{side}.position", None

    def take() -> list[list[float]]:
        nonlocal found
        if found is None:
            query = {"run": synapses.run, path: {"$exists": False}}
            found = synapses.synapses.find(query, {place: 1, "_id": 0}, batch_size=_BATCH)
        try:
            return [document[side]["position"] for document in islice(found, _BATCH)]
        except ServerError:
            found = None  # a server that was away knows nothing of it any more
            raise

    while batch := synapses.patiently(take):
        yield np.array(batch)


def replace_segments(
    synapses: SynapseStore, side: str, supervoxels: np.ndarray, segments: np.ndarray
) -> int:
    """Give all sites in these supervoxels another segment; how many rows changed.

    Only rows that have another segment are written, and none is read but by the index.

    Parameters
    ----------
    supervoxels, segments : (n,) int64 arrays
        The segment of each supervoxel.
    """
    changes = [
        UpdateMany(
            {"run": synapses.run, f"{side}.supervoxel": {"$in": ids},
             f"{side}.segment": {"$ne": segment}},
            {"$set": {f"{side}.segment": segment}},
        )
        for segment, ids in _by_segment(supervoxels, segments)
    ]
    n = 0
    for start in range(0, len(changes), _MOST_IDS):
        part = changes[start : start + _MOST_IDS]
        done = synapses.patiently(lambda p=part: synapses.synapses.bulk_write(p, ordered=False))
        n += done.modified_count
    return n


def _by_segment(supervoxels: np.ndarray, segments: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Every segment with at most `_MOST_IDS` of its supervoxels."""
    order = np.argsort(segments, kind="stable")
    names, begins = np.unique(segments[order], return_index=True)
    for segment, rows in zip(names.tolist(), np.split(order, begins[1:])):
        for start in range(0, len(rows), _MOST_IDS):
            yield segment, supervoxels[rows[start : start + _MOST_IDS]].tolist()


def forget(synapses: SynapseStore, fields: Sequence[str]) -> None:
    """Remove fields, such as ``pre.segment``, from all rows of the run."""
    present = {"run": synapses.run, "$or": [{field: {"$exists": True}} for field in fields]}
    synapses.synapses.update_many(present, {"$unset": dict.fromkeys(fields, "")})
