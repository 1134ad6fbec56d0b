"""Peak memory of a prediction worker on a volume and on one eight times as large."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click
from rich.console import Console

from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import RunStore
from em_blocks.geometry import Frame
from em_blocks.runtime.scheduler.run import run_blockwise
from em_blocks.tasks.prediction.predict import Predict
from parts.noise import SETUPS, noise

SETUP = SETUPS / "affinities_anisotropic"


def peak_mb(folder: Path, shape: tuple[int, int, int], block: tuple[int, int, int]) -> int:
    """Largest peak memory that a worker reported with any of its blocks, MB."""
    raw = noise(folder, shape, Frame((40.0, 4.0, 4.0)), (16, 64, 64))
    task = Predict.from_dict({
        "kind": "predict", "run": "memory", "raw": raw, "setup": str(SETUP),
        "output": str(folder / "out/p.zarr"), "block_shape": block, "num_workers": 1,
    })
    assert run_blockwise(task, console=Console(stderr=True)).ok
    with database_uri(None, task.home) as uri, connect(uri) as client:
        documents = RunStore(client, task.db_name, task.run).documents()
        return max(d["peak_memory_mb"] for d in documents)


@click.command()
@click.option("--blocks", default=3, show_default=True, help="Blocks along each axis at first.")
def main(blocks: int) -> None:
    tile = json.loads((SETUP / "config.json").read_text())["tile_shape"]
    peaks = []
    for factor in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            shape = tuple(factor * blocks * t for t in tile)
            peaks.append(peak_mb(Path(folder), shape, tuple(tile)))
            print(f"volume of {shape} voxels: {peaks[-1]} MB")
    print(json.dumps({"name": "worker memory, 8x volume over 1x", "value": peaks[1], "unit": "MB",
                      "against": peaks[0], "ratio": round(peaks[1] / peaks[0], 3)}))


if __name__ == "__main__":
    main()
