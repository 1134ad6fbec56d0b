"""JSON lists of links as published with Synful's evaluation on the full adult fly brain.

One object per pair of partners: ``id``, ``id_skel_pre``, ``id_skel_post``, ``location_pre``,
``location_post`` (nm, z, y, x) and in predictions ``score``, ``id_segm_pre``, ``id_segm_post``.
null is an object that is unknown, -2 a skeleton that is too far away. Other keys are not read;
columns without a key of their own (sizes, clefts, supervoxels) are not written.

Where some objects of a column are known, unknown ones are written as -1, which is read alike: one
null makes pandas read all ids of the column as floats, in which those above 2**53 become others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from em_blocks.errors import SynapseFileError
from em_blocks.kernels.synapses.table import UNMAPPED, Synapses
from em_blocks.volumes.synapse_files.checks import (
    Convert,
    columns_of,
    finite,
    object_id,
    score,
    table_of,
    whole,
)

_OBJECTS = {
    "pre_skeleton": "id_skel_pre", "post_skeleton": "id_skel_post",
    "pre_segment": "id_segm_pre", "post_segment": "id_segm_post",
}
_POSITIONS = {"pre": "location_pre", "post": "location_post"}


def read(path: Path) -> Synapses:
    """Read partners of a file; raises `SynapseFileError`."""
    rows = _load(path)
    optional = _OBJECTS | {"score": "score"}
    # A key that no row has is a column that the file lacks; one that only some have is an error.
    given = {key for row in rows if isinstance(row, dict) for key in row}
    wanted: dict[str, tuple[str, Convert]] = {"id": ("id", whole)}
    wanted |= {name: (key, _position) for name, key in _POSITIONS.items()}
    wanted |= {
        name: (key, score if name == "score" else object_id)
        for name, key in optional.items() if key in given
    }
    return table_of(path, columns_of(path, rows, wanted))


def write(path: Path, synapses: Synapses) -> None:
    """Write partners, one per line."""
    write_tables(path, [synapses])


def write_tables(path: Path, tables: Iterable[Synapses]) -> None:
    """Write the rows of all tables, one per line; memory as for one of them."""
    unknown = set(_OBJECTS)
    with open(path, "w") as file:
        file.write("[")
        before = ""
        for table in tables:
            unknown -= {name for name in unknown if (getattr(table, name) != UNMAPPED).any()}
            for line in _lines(table):
                file.write(before + line)
                before = ",\n "
        file.write("]\n")
    if unknown:
        _write_null(path, [_OBJECTS[name] for name in unknown])


def _write_null(path: Path, keys: list[str]) -> None:
    """Replace -1 by null in columns of which nothing is known, as they are published."""
    changed = path.with_name(f"{path.name}.null")
    with open(path) as lines, open(changed, "w") as file:
        for line in lines:
            for key in keys:
                line = line.replace(f'"{key}": {UNMAPPED}', f'"{key}": null')
            file.write(line)
    changed.replace(path)


def _lines(synapses: Synapses) -> Iterator[str]:
    columns = {
        "id": synapses.id.tolist(),
        **{key: getattr(synapses, name).tolist() for name, key in _OBJECTS.items()},
        **{key: _numbers(getattr(synapses, name)) for name, key in _POSITIONS.items()},
        "score": [None if math.isnan(value) else value for value in synapses.score.tolist()],
    }
    for values in zip(*columns.values(), strict=True):
        yield json.dumps(dict(zip(columns, values, strict=True)))


def _load(path: Path) -> list:
    try:
        rows = json.loads(path.read_text())
    except ValueError as error:
        raise SynapseFileError(
            f"{path} is not valid JSON: {error}. It was cut off, or is no list of partners."
        ) from error
    if not isinstance(rows, list):
        raise SynapseFileError(
            f"{path} holds a JSON {type(rows).__name__}, but a list of partners "
            '([{"id": ..., "location_pre": [z, y, x], ...}, ...]) is needed.'
        )
    return rows


def _position(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError("is not a position [z, y, x]")
    return [finite(number) for number in value]


def _numbers(positions: np.ndarray) -> list[list[float]]:
    """Return whole numbers without a decimal point, as in the published files."""
    return [
        [int(number) if number.is_integer() else number for number in position]
        for position in positions.tolist()
    ]
