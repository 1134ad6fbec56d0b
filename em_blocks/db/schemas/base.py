"""The contract of a collection of rows: its indexes, and its documents as columns of a table."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from em_blocks.kernels.synapses.table import UNMAPPED

Flags = Mapping[str, np.ndarray]
"""Which rows carry a flag: (n,) bool by its name."""


class Rows(Protocol):
    """A table of n rows, each column an attribute."""

    @property
    def id(self) -> np.ndarray:
        """Unique ids, (n,) int64."""

    def __len__(self) -> int: ...

    def sorted(self) -> Self:
        """Return the rows in the order of their ids."""


Table = TypeVar("Table", bound=Rows)


class Index(NamedTuple):
    """An index of a collection; a sparse one costs nothing for documents without its fields."""

    name: str
    keys: Sequence[str]
    sparse: bool = False


@dataclass(frozen=True)
class DocumentSchema:
    """A collection whose documents belong to a run as a whole, not to its blocks.

    Parameters
    ----------
    collection : str
    indexes : sequence of Index
    key : str
        Field that names a document within its run; ``_id`` is ``run/key``.
    """

    collection: str
    indexes: Sequence[Index]
    key: str


class RowSchema(ABC, Generic[Table]):
    """A collection with one document per row: ``_id``, ``run``, ``block``, ``flags`` and columns.

    Values that are unknown (`UNMAPPED` ids, nan) are no fields of a document: such rows cost sparse
    indexes nothing, and a query for null finds them.
    """

    collection: str
    row: str
    """What messages call one row."""
    indexes: Sequence[Index]
    """Indexes that every run needs. `RowOutput` may name more."""
    fields: Mapping[str, str]
    """Path in a document, by the column of the table."""
    positions: Mapping[str, str]
    """Path of each position in nm (z, y, x), by the name of the place."""

    @abstractmethod
    def documents(self, rows: Table, flags: Flags, *, run: str, block: str) -> list[dict]:
        """Return one document per row."""

    @abstractmethod
    def table(self, documents: Iterable[dict]) -> Table:
        """Return the rows of documents, in their order."""

    def query(self, *_: Any, **filters: Any) -> dict:
        """Return the filter of MongoDB that selects rows by what a schema offers; by default nothing."""
        if filters:
            raise TypeError(f"rows of {self.collection} cannot be selected by {', '.join(filters)}")
        return {}

    def changes(
        self, rows: Table, columns: Sequence[str], *, nulls: bool = False
    ) -> Iterator[tuple[int, dict]]:
        """Yield the id of every row and the update that writes `columns` into its document.

        Unknown values become no field, or null with `nulls`.
        """
        paths = [self.fields[column] for column in columns]
        values = zip(*(getattr(rows, column).tolist() for column in columns), strict=True)
        for id, row in zip(rows.id.tolist(), values, strict=True):
            known: dict[str, Any] = {}
            unknown: dict[str, Any] = {}
            for path, value in zip(paths, row, strict=True):
                if nulls and is_unknown(value):
                    known[path] = None
                else:
                    (unknown if is_unknown(value) else known)[path] = value
            yield id, {key: part for key, part in (("$set", known), ("$unset", unknown)) if part}

    def checksum(self, rows: Table, flags: Flags, columns: Sequence[str]) -> int:
        """Return the CRC-32 of `columns` in the order of ids; ``flags`` may be one of them."""
        order = np.argsort(rows.id)
        crc = 0
        for column in columns:
            crc = zlib.crc32(column.encode(), crc)
            if column == "flags":
                names = names_of_flags(flags, len(rows))
                crc = zlib.crc32("\n".join(",".join(names[row]) for row in order).encode(), crc)
            else:
                crc = zlib.crc32(getattr(rows, column)[order].tobytes(), crc)
        return crc


def flags_of(documents: Iterable[dict]) -> dict[str, np.ndarray]:
    """Return the flags of documents, in their order."""
    lists = [row.get("flags", []) for row in documents]
    names = sorted({name for found in lists for name in found})
    return {name: np.array([name in found for found in lists], bool) for name in names}


def names_of_flags(flags: Flags, n: int) -> list[list[str]]:
    """Return the flags of every row, sorted."""
    names: list[list[str]] = [[] for _ in range(n)]
    for name in sorted(flags):
        for row in np.flatnonzero(flags[name]):
            names[row].append(name)
    return names


def fill(places: list[dict], name: str, values: np.ndarray) -> None:
    """Set the field `name` of documents where its value is known."""
    known = np.flatnonzero((values != UNMAPPED) & (values == values))
    for row, value in zip(known.tolist(), values[known].tolist(), strict=True):
        places[row][name] = value


def is_unknown(value: float | int) -> bool:
    """Return whether a value stands for "unknown"; positions, which are lists, are known."""
    return value == UNMAPPED or value != value  # nan
