"""The list of objects as files for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from em_blocks.tasks.objects.measures import WHOLE
from em_blocks.volumes.stores.tables import BlockTables, Columns
from em_blocks.volumes.stores.whole_files import written_whole


def write_listing(folder: Path, run: str, tables: str, names: Sequence[str]) -> list[Path]:
    """Write RUN.objects.parquet and RUN.objects.csv; return their paths.

    Parameters
    ----------
    tables : str
        Folder of the table that `ListObjects` wrote.
    names : sequence of str
        The classes of the ids 1, 2, ...; without any, classes are numbers.
    """
    table = pa.table(_flat(BlockTables(tables).read(WHOLE), names))
    paths = [folder / f"{run}.objects.parquet", folder / f"{run}.objects.csv"]
    for path, write in zip(paths, (pq.write_table, pyarrow.csv.write_csv), strict=True):
        with written_whole(path) as partial:
            write(table, partial)
    return paths


def _flat(columns: Columns, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return one column per number: center_nm becomes center_z_nm, center_y_nm and center_x_nm."""
    flat: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        if name == "class" and names:
            flat[name] = np.array(names, object)[values - 1]
        elif values.ndim == 1:
            flat[name] = values
        else:
            begin = name.removesuffix("_nm")
            flat |= {f"{begin}_{axis}_nm": values[:, n] for n, axis in enumerate("zyx")}
    return flat
