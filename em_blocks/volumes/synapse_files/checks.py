"""Checks of every file of synaptic partners, and the report of a malformed row."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from em_blocks.errors import SynapseFileError
from em_blocks.kernels.synapses.table import LARGEST_ID, TOO_FAR, UNMAPPED, Synapses

Convert = Callable[[Any], Any]


def malformed(path: Path, row: int, problem: str) -> SynapseFileError:
    """Return the error of a row; `row` counts from 0, the message names it in both ways of counting."""
    return SynapseFileError(
        f"{path}: row {row + 1} (number {row} counting from 0) is malformed: {problem}. Nothing was "
        "read, because leaving rows out would change every figure made from them; correct that row "
        "or remove it."
    )


def table_of(path: Path, columns: Mapping[str, Any]) -> Synapses:
    """Make a table from columns of a file, after checking them.

    Parameters
    ----------
    columns : mapping of column of `Synapses` to sequence
        Ids may be of any integer type, unsigned 64-bit included.

    Raises
    ------
    SynapseFileError
        If columns differ in length; an id is negative, given twice or above 2**63 - 1; a position
        or a score is not finite (a score may be nan: unknown); an object is neither `UNMAPPED`,
        `TOO_FAR` (skeletons only) nor an id.
    """
    if not len(columns["id"]):
        return Synapses.empty()
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    n = len(arrays["id"])
    for name, values in arrays.items():
        if len(values) != n:
            raise SynapseFileError(
                f"{path} has {n} ids but {len(values)} rows of {name}; every column needs one value "
                "per pair of partners. The file is damaged, or was not written as a whole."
            )
        _check_column(path, name, values)
    _check_unique(path, arrays["id"])
    return Synapses(**arrays)


def _check_column(path: Path, name: str, values: np.ndarray) -> None:
    if name in ("pre", "post"):
        _refuse(path, ~np.isfinite(values).all(axis=1), values, f"{name} {{}} is not finite")
    elif name in ("score", "cleft_score"):
        _refuse(path, np.isinf(values), values, f"{name} {{}} is not finite")
    else:
        # In unsigned 64 bits a comparison with a negative number is exact too.
        _refuse(path, values > LARGEST_ID, values,
                f"{name} {{}} is above 2**63 - 1, the largest id that can be stored")
        least = _least(name)
        _refuse(path, values < least, values, f"{name} {{}} is negative")


def _least(name: str) -> int:
    if name in ("id", "size"):
        return 0
    return TOO_FAR if name.endswith("skeleton") else UNMAPPED


def _refuse(path: Path, wrong: np.ndarray, values: np.ndarray, problem: str) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise malformed(path, row, problem.format(values[row].tolist()))


def _check_unique(path: Path, ids: np.ndarray) -> None:
    order = np.argsort(ids, kind="stable")
    again = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if len(again):
        row, first = order[again + 1].min(), order[again[np.argmin(order[again + 1])]]
        raise malformed(path, int(row), f"id {ids[row]} was already given in row {first + 1}")


def columns_of(
    path: Path, rows: Iterable[Mapping[str, Any]], wanted: Mapping[str, tuple[str, Convert]]
) -> dict[str, list]:
    """Return the columns from rows of text or JSON.

    Parameters
    ----------
    wanted : mapping of column of `Synapses` to (key in a row, function)
        The function returns the value, or raises ValueError with what is wrong about it.

    Raises
    ------
    SynapseFileError
        If a row has no such key, or the function refuses its value.
    """
    columns: dict[str, list] = {name: [] for name in wanted}
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise malformed(path, number, f"{row!r:.60} is no object with keys and values")
        for name, (key, convert) in wanted.items():
            try:
                columns[name].append(convert(row[key]))
            except KeyError:
                raise malformed(path, number, f"the key {key!r} is missing") from None
            except ValueError as error:
                raise malformed(path, number, f"{key} {row[key]!r:.60} {error}") from error
    return columns


def whole(value: Any) -> int:
    """Return an integer of JSON or text below 2**63."""
    if isinstance(value, str):
        value = _number(value, int)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("is not a whole number")
    if value > LARGEST_ID:
        raise ValueError("is above 2**63 - 1, the largest id that can be stored")
    return value


def object_id(value: Any) -> int:
    """Return an id of an object; nothing (null, an empty cell) is `UNMAPPED`."""
    return UNMAPPED if value in (None, "") else whole(value)


def finite(value: Any) -> float:
    """Return a finite number of JSON or text."""
    if isinstance(value, str):
        value = _number(value, float)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError("is not a number")
    if not abs(value) <= sys.float_info.max:
        raise ValueError("is not finite")
    return float(value)


def score(value: Any) -> float:
    """Return a score; nothing is nan: unknown."""
    return math.nan if value in (None, "") else finite(value)


def _number(text: str, kind: type) -> float | int:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"is not a {'whole ' if kind is int else ''}number") from None
