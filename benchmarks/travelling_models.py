"""Predictions through every export of a shipped network, against those of its setup.

Exports the setup as a folder, as ONNX and for bioimage.io, imports each into a new folder, and predicts
a generated volume blockwise with all of them, in fp32, stored as float32. The largest difference counts,
as a share of the head's largest value (or of 1). ``--setup NAME`` chooses another shipped setup.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from rich.console import Console

from em_blocks.api import generate, shipped_setup
from em_blocks.export.models.bioimageio import export_bioimageio
from em_blocks.export.models.folder import export_folder
from em_blocks.export.models.importing import import_model
from em_blocks.export.models.model import Model
from em_blocks.export.models.onnx import export_onnx
from em_blocks.models.setup import Setup
from em_blocks.runtime.scheduler.run import run_blockwise
from em_blocks.tasks.prediction.predict import Predict
from em_blocks.volumes import Volume

TOLERANCE = 1e-5
EXPORTS = {"folder": export_folder, "onnx": export_onnx, "bioimageio": export_bioimageio}


def predicted(setup: Path, raw: Path, output: Path) -> tuple[dict[str, np.ndarray], float]:
    """Return all heads of a volume, and the seconds of compute."""
    config = Setup.from_folder(setup).config
    task = Predict(
        raw=str(raw), setup=setup, output=str(output), block_shape=config.tile_shape, precision="fp32",
        tile_shape=config.tile_shape, outputs={name: {"dtype": "float32"} for name in config.heads},
    )
    report = run_blockwise(task, console=Console(stderr=True, quiet=True))
    assert report.ok, report.reason
    volumes = {spec.name: Volume.open(spec.path) for spec in task.output_specs()}
    return {name: volume.read(volume.box) for name, volume in volumes.items()}, report.seconds["compute"]


def difference(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> float:
    """Largest difference, as a share of the largest value of its head or of 1."""
    return max(
        float(np.abs(found[name] - values).max()) / max(1.0, float(np.abs(values).max()))
        for name, values in expected.items()
    )


@click.command()
@click.option("--setup", "name", default="affinities_anisotropic", show_default=True)
def main(name: str) -> None:
    setup, worst = shipped_setup(name), 0.0
    config = Setup.from_folder(setup).config
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shape = tuple(t + 5 for t in config.tile_shape)
        generate(place / "volume.zarr", seed=11, shape=shape, voxel_size=config.voxel_size)
        raw = place / "volume.zarr/raw"
        expected, seconds = predicted(setup, raw, place / "own/p.zarr")
        print(f"{name}, {shape} voxels: {seconds:.1f} s of compute by torch in fp32")
        opened = Setup.from_folder(setup)
        for kind, export in EXPORTS.items():
            start = time.perf_counter()
            export(Model(opened, opened.checkpoint_path()), place / f"{kind}.zip")
            import_model(place / f"{kind}.zip", place / kind)
            took = time.perf_counter() - start
            size = (place / f"{kind}.zip").stat().st_size
            found, seconds = predicted(place / kind, raw, place / f"{kind}-out/p.zarr")
            largest = difference(expected, found)
            print(
                f"{kind}: largest difference {largest:.2e}; {seconds:.1f} s of compute; "
                f"{size / 1e6:.2f} MB, exported and imported in {took:.0f} s"
            )
            worst = max(worst, largest)
    print(json.dumps({"name": f"predictions through exports of {name}", "value": worst,
                      "unit": "share of the largest value", "against": TOLERANCE,
                      "ratio": round(worst / TOLERANCE, 4)}))
    sys.exit(0 if worst <= TOLERANCE else 1)


if __name__ == "__main__":
    main()
