"""CSV tables of partners: a header, then one pair per row.

Columns ``pre_z``, ``pre_y``, ``pre_x``, ``post_z``, ``post_y``, ``post_x`` (nm) must be there. All
other columns of `Synapses` may be, by their name; an empty cell is unknown. Without a column
``id``, rows are numbered from 0. Columns of other names are not read.

An object that is unknown is written as -1, never as an empty cell: one empty cell makes pandas and
spreadsheets read a column of ids as floats, in which ids above 2**53 become others.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from em_blocks.errors import SynapseFileError
from em_blocks.kernels.synapses.table import UNMAPPED, Synapses
from em_blocks.volumes.synapse_files.checks import (
    columns_of,
    finite,
    malformed,
    object_id,
    score,
    table_of,
    whole,
)

_AXES = {name: [f"{name}_{axis}" for axis in "zyx"] for name in ("pre", "post")}
_COORDINATES = [column for axes in _AXES.values() for column in axes]
_SCORES = ("score", "cleft_score")
_OPTIONAL = {
    name: score if name in _SCORES else object_id
    for name in Synapses.columns() if name not in ("id", "size", *_AXES)
} | {"id": whole, "size": lambda text: 0 if text == "" else whole(text)}


def read(path: Path) -> Synapses:
    """Read partners of a file; raises `SynapseFileError`."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        try:
            header, *rows = csv.reader(file)
        except ValueError as error:  # no line at all, or no text
            raise _not_a_table(path, "it is empty, or no text") from error
        except csv.Error as error:
            raise _not_a_table(path, str(error)) from error
    header = [name.strip() for name in header]
    if missing := [name for name in _COORDINATES if name not in header]:
        raise _not_a_table(path, f"its first line lacks {', '.join(missing)}")
    rows = [row for row in rows if row]  # a line end at the end of the file
    columns: dict[str, Any] = columns_of(path, _as_mappings(path, header, rows), _wanted(header))
    for name, axes in _AXES.items():
        columns[name] = np.stack([columns.pop(axis) for axis in axes], axis=1)
    return table_of(path, {"id": range(len(rows))} | columns)


def write(path: Path, synapses: Synapses) -> None:
    """Write partners; columns of which nothing is known are left out."""
    columns = {
        name: cells for name, cells in _columns(synapses).items()
        if name in ("id", *_COORDINATES) or any(cell != _unknown(name) for cell in cells)
    }
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        rows.writerows(zip(*columns.values(), strict=True))


def write_tables(path: Path, tables: Iterable[Synapses]) -> None:
    """Write the rows of all tables with all columns; memory as for one of them."""
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(_columns(Synapses.empty()))
        for table in tables:
            rows.writerows(zip(*_columns(table).values(), strict=True))


def _columns(synapses: Synapses) -> dict[str, list]:
    """Return the cells of every column, by its name in a file."""
    columns = {"id": synapses.id.tolist()}
    for name, axes in _AXES.items():
        columns |= dict(zip(axes, getattr(synapses, name).T.tolist(), strict=True))
    for name in Synapses.columns():
        if name in _OPTIONAL and name != "id":
            cells = getattr(synapses, name).tolist()
            columns[name] = cells if name not in _SCORES else [
                _unknown(name) if math.isnan(value) else value for value in cells
            ]
    return columns


def _unknown(name: str) -> int | str:
    """Return the cell of a row of which nothing is known."""
    if name in _SCORES:
        return ""
    return 0 if name == "size" else UNMAPPED


def _wanted(header: list[str]) -> dict[str, tuple[str, Callable]]:
    coordinates = {name: (name, finite) for name in _COORDINATES}
    return coordinates | {
        name: (name, convert) for name, convert in _OPTIONAL.items() if name in header
    }


def _as_mappings(path: Path, header: list[str], rows: list[list[str]]) -> list[Mapping[str, str]]:
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise malformed(
                path, number, f"it has {len(row)} cells, but the first line names {len(header)} columns"
            )
    return [dict(zip(header, map(str.strip, row))) for row in rows]


def _not_a_table(path: Path, problem: str) -> SynapseFileError:
    return SynapseFileError(
        f"{path} is no table of partners: {problem}. The first line must name the columns "
        f"{', '.join(_COORDINATES)} (nm), and may name others, such as id and score."
    )
