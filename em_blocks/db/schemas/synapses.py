"""Synapses as documents: columns to rows of the collection ``synapses``, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from em_blocks.db.schemas.base import Flags, Index, RowSchema, fill, names_of_flags
from em_blocks.geometry import Roi
from em_blocks.kernels.synapses.table import UNMAPPED, Synapses

Site = Literal["post", "pre", "either"]
Ids = int | Sequence[int] | np.ndarray

SIDES = ("pre", "post")
OBJECTS = ("supervoxel", "segment", "skeleton")

# Not sparse: a site without the field is what a query for null must find at once.
MAPPING = [Index(f"{side}.supervoxel", ["run", f"{side}.supervoxel"]) for side in SIDES]
"""Indexes that find unmapped sites, and sites by supervoxel."""
SKELETONS = [Index(f"{side}.skeleton", [f"{side}.skeleton"], sparse=True) for side in SIDES]
"""Indexes that find sites by skeleton."""
CLEFT = Index("cleft", ["run", "cleft"])
"""Index that finds the rows of a cleft."""

_MEASURED = ("score", "size", "cleft", "cleft_score")


class SynapseSchema(RowSchema[Synapses]):
    """Synaptic partners; what lies at a site is a field of ``pre`` or ``post``."""

    collection = "synapses"
    row = "synapse"
    indexes = (
        # Unmapped sites have no segment, and cost these indexes nothing.
        Index("post.segment", ["post.segment"], sparse=True),
        Index("pre.segment", ["pre.segment"], sparse=True),
        Index("segments", ["pre.segment", "post.segment"], sparse=True),
        Index("block", ["run", "block"]),
        Index("post.position", [f"post.position.{axis}" for axis in range(3)]),
        Index("pre.position", [f"pre.position.{axis}" for axis in range(3)]),
    )
    positions = {side: f"{side}.position" for side in SIDES}
    fields = (
        {name: name for name in _MEASURED} | positions
        | {f"{side}_{name}": f"{side}.{name}" for side in SIDES for name in OBJECTS}
    )

    def documents(self, rows: Synapses, flags: Flags, *, run: str, block: str) -> list[dict]:
        sites = zip(_sites(rows, "pre"), _sites(rows, "post"), strict=True)
        parts = zip(
            rows.id.tolist(), sites, rows.distance.tolist(), names_of_flags(flags, len(rows)),
            strict=True,
        )
        documents = [
            {"_id": id, "run": run, "block": block, "pre": pre, "post": post, "distance": distance,
             "flags": names}
            for id, (pre, post), distance, names in parts
        ]
        for name in _MEASURED:
            fill(documents, name, getattr(rows, name))
        return documents

    def table(self, documents: Iterable[dict]) -> Synapses:
        rows = list(documents)
        columns: dict[str, Any] = {}
        for column, path in self.fields.items():
            side, _, name = path.rpartition(".")
            found = [row[side] for row in rows] if side else rows
            columns[column] = _column(column, [place.get(name) for place in found])
        return Synapses(id=np.array([row["_id"] for row in rows], np.int64), **columns)

    def query(
        self, *, block: str | None = None, roi: Roi | None = None, at: Site = "post",
        pre_segment: Ids | None = None, post_segment: Ids | None = None,
        min_score: float | None = None,
    ) -> dict:
        """Return the filter for rows of which all of this holds.

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
        query: dict = {}
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


SYNAPSES = SynapseSchema()


def _sites(rows: Synapses, side: str) -> list[dict]:
    sites = [{"position": position} for position in getattr(rows, side).tolist()]
    for name in OBJECTS:
        fill(sites, name, getattr(rows, f"{side}_{name}"))
    return sites


def _column(name: str, values: list) -> np.ndarray | None:
    """Return values as a column; None where none is known."""
    if name in SIDES:
        return np.array(values, np.float64).reshape(-1, 3)
    if all(value is None for value in values):
        return None
    unknown = {"score": np.nan, "cleft_score": np.nan, "size": 0}.get(name, UNMAPPED)
    return np.array([unknown if value is None else value for value in values])


def _within(roi: Roi, site: str) -> dict:
    return {
        f"{site}.position.{axis}": {"$gte": begin, "$lt": end}
        for axis, (begin, end) in enumerate(zip(roi.offset, roi.end, strict=True))
    }


def _either(roi: Roi) -> dict:
    return {"$or": [_within(roi, "post"), _within(roi, "pre")]}


def _one_of(ids: Ids) -> Any:
    return {"$in": np.asarray(ids).tolist()} if np.ndim(ids) else int(np.asarray(ids))
