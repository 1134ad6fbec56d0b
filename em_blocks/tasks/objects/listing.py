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


def listing_paths(folder: Path, run: str) -> tuple[Path, Path]:
    """Return the paths of RUN.objects.csv and RUN.objects.parquet."""
    return folder / f"{run}.objects.csv", folder / f"{run}.objects.parquet"


def write_listing(paths: tuple[Path, Path], tables: str, names: Sequence[str]) -> None:
    """Write the list of objects as CSV and as Parquet.

    Parameters
    ----------
    paths : pair of Path
        As `listing_paths` returns them.
    tables : str
        Folder of the table that `ListObjects` wrote.
    names : sequence of str
        The classes of the ids 1, 2, ...; without any, classes are numbers.
    """
    table = pa.table(_flat(BlockTables(tables).read(WHOLE), names))
    for path, write in zip(paths, (pyarrow.csv.write_csv, pq.write_table), strict=True):
        with written_whole(path) as partial:
            write(table, partial)


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
