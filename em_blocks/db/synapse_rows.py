"""Synapses as documents: columns to rows of the collection ``synapses``, and back.

What is unknown (`UNMAPPED` ids, scores that are nan) is no field of a document: such rows cost
indexes nothing, and a query for null finds them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from em_blocks.kernels.synapses.table import UNMAPPED, Synapses

Flags = Mapping[str, np.ndarray]
"""Which rows carry a flag: (n,) bool by its name."""

OBJECTS = ("supervoxel", "segment", "skeleton")
FIELDS = {
    "score": "score", "size": "size", "cleft": "cleft", "cleft_score": "cleft_score",
    "pre": "pre.position", "post": "post.position",
} | {f"{side}_{name}": f"{side}.{name}" for side in ("pre", "post") for name in OBJECTS}
"""Path in a document, by the column of `Synapses`."""

_MEASURED = ("score", "size", "cleft", "cleft_score")


def documents_of(synapses: Synapses, flags: Flags, *, run: str, block: str) -> list[dict]:
    """One document per row."""
    sites = zip(_sites(synapses, "pre"), _sites(synapses, "post"), strict=True)
    rows = zip(
        synapses.id.tolist(), sites, synapses.distance.tolist(), names_of_flags(flags, len(synapses)),
        strict=True,
    )
    documents = [
        {"_id": id, "run": run, "block": block, "pre": pre, "post": post, "distance": distance,
         "flags": names}
        for id, (pre, post), distance, names in rows
    ]
    for name in _MEASURED:
        _fill(documents, name, getattr(synapses, name))
    return documents


def table_of(documents: Iterable[dict]) -> Synapses:
    """The rows of documents, in their order."""
    rows = list(documents)
    columns = {}
    for column, path in FIELDS.items():
        side, _, name = path.rpartition(".")
        found = [row[side] for row in rows] if side else rows
        columns[column] = _column(column, [place.get(name) for place in found])
    return Synapses(id=np.array([row["_id"] for row in rows], np.int64), **columns)


def flags_of(documents: Iterable[dict]) -> dict[str, np.ndarray]:
    """The flags of documents, in their order."""
    lists = [row.get("flags", []) for row in documents]
    names = sorted({name for found in lists for name in found})
    return {name: np.array([name in found for found in lists], bool) for name in names}


def changes_of(
    synapses: Synapses, columns: Sequence[str], *, nulls: bool = False
) -> Iterator[tuple[int, dict]]:
    """Id and update of every row, that makes its document say what `columns` say.

    What is unknown is no field, or null with `nulls`.
    """
    paths = [FIELDS[column] for column in columns]
    values = zip(*(getattr(synapses, column).tolist() for column in columns), strict=True)
    for id, row in zip(synapses.id.tolist(), values, strict=True):
        known, unknown = {}, {}
        for path, value in zip(paths, row, strict=True):
            if nulls and is_unknown(value):
                known[path] = None
            else:
                (unknown if is_unknown(value) else known)[path] = value
        yield id, {key: part for key, part in (("$set", known), ("$unset", unknown)) if part}


def checksum_of_rows(synapses: Synapses, flags: Flags, columns: Sequence[str]) -> int:
    """CRC-32 of `columns` in the order of ids; ``flags`` may be one of them."""
    order = np.argsort(synapses.id)
    crc = 0
    for column in columns:
        crc = zlib.crc32(column.encode(), crc)
        if column == "flags":
            names = names_of_flags(flags, len(synapses))
            crc = zlib.crc32("\n".join(",".join(names[row]) for row in order).encode(), crc)
        else:
            crc = zlib.crc32(np.ascontiguousarray(getattr(synapses, column)[order]), crc)
    return crc


def names_of_flags(flags: Flags, n: int) -> list[list[str]]:
    """The flags of every row, sorted."""
    names: list[list[str]] = [[] for _ in range(n)]
    for name in sorted(flags):
        for row in np.flatnonzero(flags[name]):
            names[row].append(name)
    return names


def is_unknown(value: float | int) -> bool:
    """Whether a value stands for "unknown"; positions, which are lists, are known."""
    return value == UNMAPPED or value != value  # nan


def _sites(synapses: Synapses, side: str) -> list[dict]:
    sites = [{"position": position} for position in getattr(synapses, side).tolist()]
    for name in OBJECTS:
        _fill(sites, name, getattr(synapses, f"{side}_{name}"))
    return sites


def _fill(places: list[dict], name: str, values: np.ndarray) -> None:
    """Set `name` where it is known."""
    known = np.flatnonzero((values != UNMAPPED) & (values == values))
    for row, value in zip(known.tolist(), values[known].tolist(), strict=True):
        places[row][name] = value


def _column(name: str, values: list) -> np.ndarray | None:
    """Values as a column; None where nobody knows any."""
    if name in ("pre", "post"):
        return np.array(values, np.float64).reshape(-1, 3)
    if all(value is None for value in values):
        return None
    unknown = {"score": np.nan, "cleft_score": np.nan, "size": 0}.get(name, UNMAPPED)
    return np.array([unknown if value is None else value for value in values])
