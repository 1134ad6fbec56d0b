"""SQLite tables of partners: ``synlinks``, as the links of the full adult fly brain were released.

``pre_x`` ... ``post_z`` (nm), ``scores``, ``segmentid_pre``, ``segmentid_post``, ``cleft_scores``;
and ours: ``id``, ``size``, ``cleft``, ``supervoxelid_pre``, ``skeletonid_pre`` ... A score that is
unknown is NULL. Segments are indexed, so inputs and outputs of a neuron are found at once. Of a
file without ``id``, as the release is, row numbers become ids.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np

from em_blocks.errors import SynapseFileError
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.volumes.synapse_files.checks import malformed, table_of

_POSITIONS = {
    f"{side}_{axis}": (side, "zyx".index(axis)) for side in ("pre", "post") for axis in "xyz"
}
_SCORES = {"scores": "score", "cleft_scores": "cleft_score"}
_OBJECTS = {
    "segmentid_pre": "pre_segment", "segmentid_post": "post_segment", "id": "id", "size": "size",
    "cleft": "cleft", "supervoxelid_pre": "pre_supervoxel", "supervoxelid_post": "post_supervoxel",
    "skeletonid_pre": "pre_skeleton", "skeletonid_post": "post_skeleton",
}
_COLUMNS = [*_POSITIONS, *_SCORES, *_OBJECTS]
_INDEXED = ("segmentid_pre", "segmentid_post")
_ROWS_AT_ONCE = 1 << 17


def read(path: Path) -> Synapses:
    """Read partners of a file; raises `SynapseFileError`."""
    if not path.is_file():
        raise FileNotFoundError(2, "No such file or directory")
    try:
        # As a URI it is opened for reading only; sqlite would else make a file that is missing.
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            return table_of(path, _columns(path, database))
    except sqlite3.DatabaseError as error:
        raise SynapseFileError(
            f"{path} is no SQLite database, or is damaged: {error}."
        ) from error


def write(path: Path, synapses: Synapses) -> None:
    write_tables(path, [synapses])


def write_tables(path: Path, tables: Iterable[Synapses]) -> None:
    """Write the rows of all tables; memory as for one of them.

    Raises
    ------
    SynapseFileError
        If two tables have a row of the same id.
    """
    with closing(sqlite3.connect(path)) as database:
        # The file is renamed when it is complete, so there is nothing to be rolled back.
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        kinds = {**dict.fromkeys([*_POSITIONS, *_SCORES], "REAL"), **dict.fromkeys(_OBJECTS, "INTEGER")}
        kinds["id"] += " PRIMARY KEY"
        database.execute(f"CREATE TABLE synlinks ({', '.join(f'{n} {k}' for n, k in kinds.items())})")
        try:
            for table in tables:
                _insert(path, database, table)
            for name in _INDEXED:
                database.execute(f"CREATE INDEX {name} ON synlinks ({name})")
            database.commit()
        except sqlite3.OperationalError as error:  # a full disk, for example
            raise OSError(str(error)) from error


def _insert(path: Path, database: sqlite3.Connection, table: Synapses) -> None:
    command = f"INSERT INTO synlinks ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
    for first in range(0, len(table), _ROWS_AT_ONCE):  # as Python objects rows take ten times more
        part = table.select(np.arange(first, min(len(table), first + _ROWS_AT_ONCE)))
        try:
            # sqlite stores nan as NULL.
            database.executemany(command, zip(*_values(part), strict=True))
        except sqlite3.IntegrityError as error:
            raise SynapseFileError(
                f"{path} cannot be written: an id stands in two tables ({error}). Ids tell rows apart, "
                "so they must be unique."
            ) from error


def _values(table: Synapses) -> list[list]:
    """Return the columns in the order of `_COLUMNS`."""
    names = _SCORES | _OBJECTS
    return [
        *(getattr(table, side)[:, axis].tolist() for side, axis in _POSITIONS.values()),
        *(getattr(table, name).tolist() for name in names.values()),
    ]


def _columns(path: Path, database: sqlite3.Connection) -> dict[str, np.ndarray]:
    given = [row[1] for row in database.execute("PRAGMA table_info(synlinks)")]
    if missing := [name for name in _POSITIONS if name not in given]:
        raise SynapseFileError(
            f"{path} has no table 'synlinks' with the columns {', '.join(missing)}; a table of partners "
            f"has {', '.join(_POSITIONS)} in nm."
        )
    found = {name: _read(path, database, name) for name in _COLUMNS if name in given}
    if "id" not in found:
        found["id"] = _read(path, database, "rowid")
    axes = {(side, axis): found[name] for name, (side, axis) in _POSITIONS.items()}
    columns = {
        side: np.stack([axes[side, axis] for axis in range(3)], axis=1) for side in ("pre", "post")
    }
    return columns | {ours: found[name] for name, ours in (_SCORES | _OBJECTS).items() if name in found}


def _read(path: Path, database: sqlite3.Connection, name: str) -> np.ndarray:
    """Return a column, in the order of rows."""
    values = (row[0] for row in database.execute(f"SELECT {name} FROM synlinks ORDER BY rowid"))
    whole = name in _OBJECTS or name == "rowid"
    return np.fromiter(
        (_number(path, row, name, value, whole) for row, value in enumerate(values)),
        np.int64 if whole else np.float64,
    )


def _number(path: Path, row: int, name: str, value: object, whole: bool) -> float | int:
    """Return `value`, or raise `SynapseFileError`: in SQLite any row may hold anything."""
    if value is None and name in _SCORES:
        return np.nan
    if not isinstance(value, int if whole else (int, float)):
        raise malformed(
            path, row, f"{name} is {'NULL' if value is None else repr(value)[:60]}, but a "
            f"{'whole ' if whole else ''}number is needed"
        )
    return value
