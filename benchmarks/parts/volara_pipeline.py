"""volara's pipeline from affinities to segments, for `benchmarks/segment_vs_volara.py`.

Runs in an environment of its own, since volara needs an older daisy: PYTHON THIS FOLDER, where
FOLDER/test.zarr/affinities lies. Fragments by mutex watershed with its documented biases, edges
scored by direct and long-range affinities, one global mutex watershed, relabelling.
"""

import json
import os
import sys
from pathlib import Path

from funlib.geometry import Coordinate
from funlib.persistence import open_ds
from volara.blockwise import AffAgglom, ExtractFrags, GraphMWS, Relabel
from volara.datasets import Affs, Labels
from volara.dbs import SQLite
from volara.lut import LUT

DIRECT_BIAS, LONG_RANGE_BIAS = -0.4, -0.7


def main(folder: Path) -> None:
    os.chdir(folder)  # volara keeps its logs and markers in the current directory
    container = Path("test.zarr")
    affinities = open_ds(container / "affinities")
    shifts = [Coordinate(shift) for shift in json.loads(Path("neighborhood.json").read_text())]
    source = Affs(store=container / "affinities", neighborhood=shifts)
    fragments, table = Labels(store=container / "fragments"), LUT(path=container / "lut.npz")
    graph = SQLite(
        path=container / "db.sqlite", edge_attrs={"direct": "float", "long_range": "float"}
    )
    blocks = {
        "db": graph, "affs_data": source, "frags_data": fragments, "num_workers": 2,
        "block_size": Coordinate(32, 128, 128), "context": Coordinate(8, 16, 16),
    }
    roi = affinities.roi
    for task in (
        ExtractFrags(bias=[DIRECT_BIAS] * 3 + [LONG_RANGE_BIAS] * 6, **blocks),
        AffAgglom(scores={"direct": shifts[:3], "long_range": shifts[3:]}, **blocks),
        GraphMWS(
            db=graph, lut=table, roi=[roi.get_begin(), roi.get_shape()],
            weights={"direct": (1.0, DIRECT_BIAS), "long_range": (1.0, LONG_RANGE_BIAS)},
        ),
        Relabel(
            frags_data=fragments, seg_data=Labels(store=container / "volara_segments"), lut=table,
            block_size=blocks["block_size"], num_workers=2,
        ),
    ):
        assert task.run_blockwise(), task.task_name


if __name__ == "__main__":
    main(Path(sys.argv[1]))
