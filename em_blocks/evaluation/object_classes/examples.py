"""Objects whose class is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from em_blocks.errors import ConfigError
from em_blocks.evaluation.object_classes.tables import ids_of, read_table

CLASS = "class"


@dataclass(frozen=True)
class Examples:
    """Rows of a table of objects, and their classes."""

    rows: np.ndarray
    """Of the table of objects, int64, ascending."""
    names: np.ndarray
    """The class of each row, as text."""

    @cached_property
    def counts(self) -> dict[str, int]:
        """Examples of every class, classes in the order of the alphabet."""
        found, counts = np.unique(self.names, return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))


def read_examples(path: Path, ids: np.ndarray, dropped: Iterable[int] = ()) -> Examples:
    """Read a CSV or Parquet file of `id` and `class`; rows without a class are left out.

    Parameters
    ----------
    ids : array
        Of the table of objects, ascending.
    dropped : iterable of int
        Ids that were left out of that table: their examples are left out too.

    Raises
    ------
    ConfigError
        If the file cannot be used, names ids that no table has, or holds no example.
    """
    table = read_table(path)
    if CLASS not in table.column_names:
        raise ConfigError(
            f"{path} has the columns {', '.join(table.column_names)}, but a column {CLASS!r} is needed "
            "with the class of every id. Name it so."
        )
    found, names = ids_of(path, table), table[CLASS].to_pylist()
    known = {
        int(id): str(name) for id, name in zip(found, names, strict=True) if name not in (None, "")
    }
    for id in set(known) & set(map(int, dropped)):
        del known[id]
    own = np.array(sorted(known), np.uint64)
    unknown = np.setdiff1d(own, ids)
    if len(unknown):
        raise ConfigError(
            f"{path} has classes of {len(unknown)} ids that are in no table, such as "
            f"{', '.join(map(str, unknown[:10]))}. They may be of another segmentation, whose ids mean "
            "other objects. Use the ids of the tables, or remove these rows."
        )
    if not len(own):
        raise ConfigError(
            f"{path} has no class for any object of the tables. Write rows of id and class, or leave "
            "the key out."
        )
    return Examples(np.searchsorted(ids, own), np.array([known[int(id)] for id in own]))
