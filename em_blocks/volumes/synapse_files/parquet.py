"""Parquet tables of partners, for pandas, DuckDB, Spark and others.

One column per number: ``id``, ``pre_z``, ``pre_y``, ``pre_x``, ``post_z`` ... (nm), and all other
columns of `Synapses` by their name. A score that is unknown is null. Only ids and positions must
be there; other columns of a file are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from em_blocks.errors import SynapseFileError
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.volumes.synapse_files.checks import malformed, table_of

_SCORES = ("score", "cleft_score")
_AXES = {name: [f"{name}_{axis}" for axis in "zyx"] for name in ("pre", "post")}
_META = {"unit": "nm", "unknown object": "-1", "background": "0", "skeleton too far": "-2"}
_ROWS_PER_GROUP = 1 << 20


def read(path: Path) -> Synapses:
    """Read partners of a file; raises `SynapseFileError`."""
    try:
        table = pq.read_table(path, columns=_wanted(path), use_threads=False)
    except pa.ArrowException as error:
        raise SynapseFileError(
            f"{path} is no Parquet file, or is damaged: {error}. Write it again."
        ) from error
    columns = {
        name: np.stack([_numbers(path, table, axis) for axis in axes], axis=1)
        for name, axes in _AXES.items()
    }
    for name in table.column_names:
        if name in Synapses.columns():
            columns[name] = _numbers(path, table, name)
    return table_of(path, columns)


def write(path: Path, synapses: Synapses) -> None:
    write_tables(path, [synapses])


def write_tables(path: Path, tables: Iterable[Synapses]) -> None:
    """Write the rows of all tables in their order; memory as for one of them."""
    with opened(path) as write:
        for table in tables:
            write(table)


@contextmanager
def opened(path: Path) -> Iterator[Callable[[Synapses], None]]:
    """Open a new file; yield the function that appends a table to it."""
    schema = _schema()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def write(table: Synapses) -> None:
            if len(table):
                columns = [_column(table, field) for field in schema]
                writer.write_table(pa.table(columns, schema), row_group_size=_ROWS_PER_GROUP)

        yield write


def _schema() -> pa.Schema:
    fields = [
        pa.field(flat, _type(name), nullable=name in _SCORES)
        for name in Synapses.columns() for flat in _AXES.get(name, [name])
    ]
    return pa.schema(fields, _META)


def _type(name: str) -> pa.DataType:
    return pa.float64() if name in _AXES or name in _SCORES else pa.int64()


def _column(table: Synapses, field: pa.Field) -> pa.Array:
    for name, axes in _AXES.items():
        if field.name in axes:
            values = getattr(table, name)[:, axes.index(field.name)]
            return pa.array(np.ascontiguousarray(values))
    # As from pandas: nan becomes null, which averages of other programs leave out.
    return pa.array(getattr(table, field.name), field.type, from_pandas=True)


def _wanted(path: Path) -> list[str]:
    """Return columns to read, of those in the file; raises `SynapseFileError` if one is missing."""
    given = pq.read_schema(path).names
    needed = ["id", *_AXES["pre"], *_AXES["post"]]
    if missing := [name for name in needed if name not in given]:
        raise SynapseFileError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(given)}. A table of "
            f"partners has {', '.join(needed)}, positions in nm: rename its columns."
        )
    return [*needed, *(name for name in Synapses.columns() if name in given and name != "id")]


def _numbers(path: Path, table: pa.Table, name: str) -> np.ndarray:
    """Return a column as numbers; raises `SynapseFileError` for other values, and for none in a row."""
    column = table.column(name)
    is_score = name in _SCORES
    real = is_score or name in [*_AXES["pre"], *_AXES["post"]]
    kinds = (pa.types.is_floating, pa.types.is_integer) if real else (pa.types.is_integer,)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise SynapseFileError(
            f"The column {name} of {path} holds {column.type}, but "
            f"{'numbers' if real else 'whole numbers'} are needed; convert it."
        )
    if column.null_count and not is_score:
        row = pc.index(pc.is_null(column), True).as_py()
        raise malformed(path, row, f"{name} is null")
    return column.to_numpy().astype(np.float64) if real else column.to_numpy()
