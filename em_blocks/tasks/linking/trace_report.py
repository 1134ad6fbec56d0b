"""The trace of labels over faces, as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from em_blocks.json_text import json_text
from em_blocks.kernels.linking.trace import Trace
from em_blocks.tasks.linking.link_labels import WHOLE
from em_blocks.tasks.linking.slabs import AXES, Slab, Slabs
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns
from em_blocks.volumes.stores.whole_files import written_whole


def trace_paths(folder: Path, run: str) -> tuple[Path, Path, Path]:
    """Return the paths of RUN.trace.json, RUN.links.csv and RUN.links.parquet."""
    return (
        folder / f"{run}.trace.json", folder / f"{run}.links.csv", folder / f"{run}.links.parquet"
    )


def write_trace(
    paths: tuple[Path, Path, Path], slabs: Slabs, tables: str, rule: dict[str, object]
) -> None:
    """Write the trace report as JSON, and all pairs of labels that meet as CSV and Parquet.

    Parameters
    ----------
    paths : three of Path
        As `trace_paths` returns them.
    tables : str
        Folder of the tables that `LinkLabels` wrote.
    rule : dict
        By which labels were linked; the report begins with it.
    """
    report, *listing = paths
    links, events = (BlockTables(store.join(tables, name)).read(WHOLE) for name in ("links", "events"))
    with written_whole(report) as partial:
        partial.write_text(json_text(rule | document(slabs, events), indent=2) + "\n")
    pairs = pa.table({
        **{name: values for name, values in links.items() if name != "axis"},
        "axis": np.array(list(AXES))[links["axis"]],
    })
    for path, write in zip(listing, (pyarrow.csv.write_csv, pq.write_table), strict=True):
        with written_whole(path) as partial:
            write(pairs, partial)


def document(slabs: Slabs, events: Columns) -> dict:
    """Return slabs, the events of every face between them, and the sums of these, as JSON."""
    rows = [
        dict(zip(events, values, strict=True))
        for values in zip(*(column.tolist() for column in events.values()), strict=True)
    ]
    return {
        "total": {name: int(events[name].sum()) for name in Trace._fields},
        "slabs": [_described(slabs, slab) for slab in slabs.slabs],
        "faces": [
            {**row, "axis": AXES[row["axis"]], "position_nm": _position(slabs, row)} for row in rows
        ],
    }


def _described(slabs: Slabs, slab: Slab) -> dict:
    return {
        "number": slab.number, "path": slab.volume.path,
        "offset_nm": list(slabs.frame.to_roi(slab.box).offset), "shape": list(slab.box.shape),
    }


def _position(slabs: Slabs, row: dict) -> float:
    """Return where on its axis a face lies, nm: where the higher slab begins."""
    return slabs.frame.to_roi(slabs.slabs[row["high"]].box).offset[row["axis"]]
