"""Tables of features of objects, joined by id."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from em_blocks.errors import ConfigError

ID = "id"
_SUFFIXES = (".parquet", ".csv")
_SHOWN = 10
"""Ids or names in a message."""


@dataclass(frozen=True)
class Chosen:
    """Values of the columns that one name or pattern stands for."""

    names: list[str]
    values: np.ndarray
    """(objects, columns) float64, NaN where a value is missing."""


@dataclass(frozen=True)
class Joined:
    """Columns of several tables, one row per object, ids ascending."""

    ids: np.ndarray
    chosen: list[Chosen]
    n_unmatched: int
    """Ids that are not in all tables, and therefore have no row."""


def read_table(path: Path) -> pa.Table:
    """Read a Parquet or CSV file with a column of ids.

    Raises
    ------
    ConfigError
        If it cannot be read, or its ids are missing, repeated, or no whole numbers from 0.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(
            f"{path} is a {path.suffix or 'file without suffix'}, but tables are read from .parquet and "
            ".csv, and the suffix tells them apart. Convert or rename it."
        )
    try:
        table = pq.read_table(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(
            f"The table {path} cannot be read: {error}. A {path.suffix} file with a column {ID!r} of "
            "whole numbers and one row per object is needed."
        ) from error
    _check_columns(path, table)
    return table


def _read_csv(path: Path) -> pa.Table:
    # Ids of EM segmentations exceed int64, which is what they would be read as.
    types = pyarrow.csv.ConvertOptions(column_types={ID: pa.uint64()})
    return pyarrow.csv.read_csv(path, convert_options=types)


def _check_columns(path: Path, table: pa.Table) -> None:
    if table.column_names.count(ID) != 1:
        raise ConfigError(
            f"The table {path} has the columns {_some(table.column_names)}, but one column {ID!r} is "
            "needed: rows of tables are joined by the ids of objects. Name it so."
        )
    if repeated := {name for name in table.column_names if table.column_names.count(name) > 1}:
        raise ConfigError(
            f"The table {path} has several columns {_some(sorted(repeated))}; a feature must be one of "
            "them. Rename the others."
        )


def ids_of(path: Path, table: pa.Table) -> np.ndarray:
    """Return the ids of a table, uint64; raises `ConfigError` if they do not tell objects apart."""
    column = table[ID]
    if not pa.types.is_integer(column.type):
        raise ConfigError(
            f"The ids of {path} are {column.type}, but whole numbers are needed: floats do not hold ids "
            "above 2^53 exactly, and objects would be mixed up. Write the column as uint64."
        )
    if column.null_count or (len(column) and pc.min(column).as_py() < 0):
        raise ConfigError(
            f"The table {path} has rows whose id is empty or negative: they belong to no object. "
            "Remove them."
        )
    ids = column.to_numpy().astype(np.uint64)
    found, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ConfigError(
            f"The table {path} has several rows for {(counts > 1).sum()} of its ids, such as "
            f"{_some(found[counts > 1])}: it is not known which of them describes the object. Keep one "
            "row per id."
        )
    return ids


def read_joined(paths: Sequence[Path], wanted: Sequence[str], *, drop_unmatched: bool) -> Joined:
    """Read tables and join them by id.

    Parameters
    ----------
    paths : sequence of Path
        Tables whose rows may be in any order.
    wanted : sequence of str
        Names of columns, of vectors (a column of lists, or NAME_0, NAME_1, ...), or patterns with
        ``*`` for the columns of numbers that they match.
    drop_unmatched : bool
        Leave out ids that some table lacks, which is an error otherwise.

    Raises
    ------
    ConfigError
        If a table cannot be used, a column is unknown, named twice or has no numbers, or ids differ.
    """
    tables = [read_table(path) for path in paths]
    columns = _owners(paths, tables)
    chosen = [_matching(name, columns) for name in wanted]
    _check_once(wanted, chosen)
    ids = [ids_of(path, table) for path, table in zip(paths, tables, strict=True)]
    common = _common(paths, ids, drop_unmatched)
    orders = [np.argsort(own)[np.isin(np.sort(own), common)] for own in ids]
    every = np.unique(np.concatenate(ids))
    values = [_values(names, columns, tables, orders, paths) for names in chosen]
    return Joined(common, values, len(every) - len(common))


def _owners(paths: Sequence[Path], tables: Sequence[pa.Table]) -> dict[str, tuple[int, pa.DataType]]:
    """Return the table and the type of every column."""
    found: dict[str, tuple[int, pa.DataType]] = {}
    for number, table in enumerate(tables):
        for field in table.schema:
            if field.name in found:
                raise ConfigError(
                    f"Both {paths[found[field.name][0]]} and {paths[number]} have a column "
                    f"{field.name!r}, and it is not known which is meant. Rename one of them."
                )
            if field.name != ID:
                found[field.name] = number, field.type
    return found


def _matching(name: str, columns: dict[str, tuple[int, pa.DataType]]) -> list[str]:
    if name in columns:
        if not _is_numeric(columns[name][1]):
            raise ConfigError(
                f"The feature {name!r} is {columns[name][1]}, but numbers, or lists of numbers, are "
                "needed: distances between objects are computed from them. Choose another column."
            )
        return [name]
    part = re.compile(re.escape(name) + r"_(\d+)")
    if parts := {int(m[1]): column for column in columns if (m := part.fullmatch(column))}:
        return [parts[number] for number in sorted(parts)]
    found = [c for c, (_, type) in columns.items() if _is_numeric(type) and _fits(c, type, name)]
    if "*" in name and found:
        return sorted(found, key=_natural)
    near = difflib.get_close_matches(name, columns, n=3)
    raise ConfigError(
        f"No table has a feature {name!r}"
        + (f"; did you mean {_some(near)}?" if near else ".")
        + f" There are {len(columns)}: {_some(columns)}. Correct 'features'."
    )


def _fits(column: str, type: pa.DataType, pattern: str) -> bool:
    # A pattern for the numbers of a vector also finds the vector that is stored as one column.
    return fnmatchcase(column, pattern) or (_is_list(type) and fnmatchcase(f"{column}_0", pattern))


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts latent_2 before latent_10."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part)
            for part in re.split(r"(\d+)", name)]


def _is_list(type: pa.DataType) -> bool:
    return (
        pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type)
    )


def _is_numeric(type: pa.DataType) -> bool:
    if _is_list(type):
        return _is_numeric(type.value_type) and not _is_list(type.value_type)
    # A column without any value has no type in a CSV; all of its values are missing.
    return (
        pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_boolean(type)
        or pa.types.is_null(type)
    )


def _check_once(wanted: Sequence[str], chosen: Sequence[list[str]]) -> None:
    owner: dict[str, str] = {}
    for name, columns in zip(wanted, chosen, strict=True):
        for column in columns:
            if column in owner:
                raise ConfigError(
                    f"The column {column!r} is chosen twice, by {owner[column]!r} and {name!r}; it "
                    "would count twice. Narrow one of them."
                )
            owner[column] = name


def _common(paths: Sequence[Path], ids: Sequence[np.ndarray], drop: bool) -> np.ndarray:
    """Return the ids that all tables have, ascending."""
    common = np.unique(ids[0])
    for own in ids[1:]:
        common = np.intersect1d(common, own, assume_unique=True)
    for path, own in zip(paths, ids, strict=True):
        missing = np.setdiff1d(np.concatenate(ids), own)
        if len(missing) and not drop:
            raise ConfigError(
                f"The table {path} lacks {len(missing)} ids that another table has, such as "
                f"{_some(missing)}. Objects without some of their features cannot be compared with "
                "others. Complete it, or set \"missing_ids\": \"drop\" to leave these objects out."
            )
    if not len(common):
        raise ConfigError(
            f"No id is in all of the tables {_some(paths)}, so there is nothing to compare. Check that "
            "they describe the same segmentation and are not empty."
        )
    return common


def _values(
    names: Iterable[str], columns: dict, tables: Sequence[pa.Table], orders: Sequence[np.ndarray],
    paths: Sequence[Path],
) -> Chosen:
    found: list[np.ndarray] = []
    spelled: list[str] = []
    for name in names:
        number, type = columns[name]
        column = tables[number][name]
        values = _numbers(column) if not _is_list(type) else _vectors(paths[number], name, column)
        found.append(values[orders[number]].reshape(len(orders[number]), -1))
        spelled += [f"{name}_{n}" for n in range(found[-1].shape[1])] if _is_list(type) else [name]
    return Chosen(spelled, np.concatenate(found, axis=1))


def _numbers(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)


def _vectors(path: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """Return lists of one length as (rows, length); a missing list is NaN."""
    array: Any = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    present = np.asarray(array.is_valid())
    lengths = np.unique(np.asarray(pc.list_value_length(array.drop_null())))
    if len(lengths) != 1 or lengths[0] == 0:
        raise ConfigError(
            f"The lists of {name!r} in {path} have the lengths {_some(lengths)}, but all must have one, "
            "from 1: their numbers are columns. Correct the table."
        )
    values = np.full((len(array), int(lengths[0])), np.nan)
    values[present] = _numbers(pc.list_flatten(array)).reshape(-1, int(lengths[0]))
    return values


def _some(items: Iterable) -> str:
    """Return the first of some items as text."""
    shown = [str(item) for item in items]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
