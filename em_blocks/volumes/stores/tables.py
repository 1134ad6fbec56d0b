"""Rows that belong to blocks: one Parquet file per block, replaced as a whole."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorstore as ts

from em_blocks.errors import VolumeError
from em_blocks.volumes.stores.store import explained, join, kvstore_spec

Columns = dict[str, np.ndarray]


class BlockTables:
    """The tables of one output, in a local folder or an object store.

    A file appears in one piece or not at all, so a killed worker leaves the old table or the
    new one. The block documents in the database state which tables exist, not a listing.

    Parameters
    ----------
    folder : str
        Path or URL; block ``zi/yi/xi`` is stored as ``zi/yi/xi.parquet`` below it.
    """

    def __init__(self, folder: str):
        self.folder = folder
        self._store: ts.KvStore | None = None

    def write(self, key: str, columns: Mapping[str, np.ndarray]) -> None:
        """Replace the table of the block `key` (``zi/yi/xi``).

        Parameters
        ----------
        columns : mapping of name to (n,) or (n, k) array
            All of the same length; (n, k) becomes a list of fixed size k.
        """
        buffer = io.BytesIO()
        pq.write_table(
            pa.table({name: _column(values) for name, values in columns.items()}),
            buffer, compression="zstd", compression_level=1, use_dictionary=False,
        )
        with explained(f"{self._path(key)} cannot be written"):
            self._opened().write(f"{key}.parquet", buffer.getvalue()).result()

    def read(self, key: str, columns: list[str] | None = None) -> Columns:
        """Return the table of the block `key`, all columns or the chosen ones.

        Raises
        ------
        VolumeError
            If there is none, or it is damaged.
        """
        with explained(f"{self._path(key)} cannot be read"):
            found = self._opened().read(f"{key}.parquet").result()
        if found.state != "value":
            raise VolumeError(
                f"{self._path(key)} is missing, although its block should be done. It was deleted, or "
                "the run that writes it is not finished: run that step again, or `em-blocks verify` "
                "its config to have missing blocks done again."
            )
        try:
            table = pq.read_table(io.BytesIO(found.value), columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise VolumeError(
                f"{self._path(key)} is damaged ({error}). `em-blocks verify` on the config that made it "
                "has the block done again."
            ) from error
        return {name: _array(table.column(name)) for name in table.column_names}

    def _path(self, key: str) -> str:
        return join(self.folder, f"{key}.parquet")

    def _opened(self) -> ts.KvStore:
        if self._store is None:
            self._store = ts.KvStore.open(kvstore_spec(self.folder)).result()
        return self._store


def checksum_of_columns(columns: Mapping[str, np.ndarray]) -> int:
    """Return CRC-32 of names and values, in the order of the columns."""
    crc = 0
    for name, values in columns.items():
        crc = zlib.crc32(np.ascontiguousarray(values).data, zlib.crc32(name.encode(), crc))
    return crc


def _column(values: np.ndarray) -> pa.Array:
    values = np.asarray(values)
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _array(column: pa.ChunkedArray) -> np.ndarray:
    kind = column.type
    if not pa.types.is_fixed_size_list(kind):
        return column.to_numpy()
    flat = [chunk.flatten() for chunk in column.chunks] or [pa.array([], kind.value_type)]
    return pa.chunked_array(flat).to_numpy().reshape(-1, kind.list_size)
