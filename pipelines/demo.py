"""A whole job on a volume of its own: generate, predict, score, draw: ``demo.py [FOLDER]``."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from PIL import Image

import em_blocks.setups
from em_blocks.cli.common import print_report, shows_errors
from em_blocks.geometry import Frame
from em_blocks.volumes import Volume

SETUP = Path(em_blocks.setups.__file__).parent / "affinities_anisotropic"
SHAPE, SEED = (32, 384, 384), 2026
VOXEL_SIZE = (40.0, 4.0, 4.0)
BLOCK_SHAPE = (16, 128, 128)
NEXT_STEPS = """
Run it again; finished blocks are skipped:
  {bin}em-blocks predict {config}
See how far a run is, also while it runs:
  {bin}em-blocks status {config}
Ask the database, here for the three slowest blocks (mongosh takes the same address):
  {bin}python -c 'import pymongo, sys; blocks = pymongo.MongoClient(sys.argv[1]).em_blocks.blocks
for block in blocks.find({{"run": "demo"}}, {{"seconds": 1}}).sort("seconds.compute", -1).limit(3):
    print(block)' "$({bin}em-blocks db start {config})"
"""


class Result(NamedTuple):
    """What the demo judges and draws; small enough to be in memory as a whole."""

    raw: np.ndarray  # (z, y, x) uint8
    truth: np.ndarray  # (z, y, x) neurons, 0 where the network should see a membrane
    affinities: np.ndarray  # (c, z, y, x) float32, 0..1
    neighborhood: list[list[int]]  # (c, 3) voxels (z, y, x)


@click.command(name="demo")
@click.argument("folder", default="demo", type=click.Path(file_okay=False, path_type=Path))
@shows_errors
def main(folder: Path) -> None:
    """Make a small EM-like volume in FOLDER, predict it block by block, draw the result.

    Repeating the command computes only what is missing.
    """
    from em_blocks.runtime.run import run_blockwise
    from em_blocks.tasks.predict import Predict

    if not (folder / "volume.zarr").exists():
        click.echo(f"Making a volume of {SHAPE} voxels (z, y, x): {folder / 'volume.zarr'}")
        make_volume(folder)
    report = run_blockwise(Predict.from_file(write_config(folder)))
    print_report(report, as_json=False)
    if not report.ok:
        sys.exit(report.exit_code)
    result = read_result(folder, report.outputs["affinities"])
    precision = show_scores(result)
    draw(result, folder / "panel.png", precision)
    show_next_steps(folder / "predict.json")


def make_volume(folder: Path) -> None:
    """Write raw and neurons of a phantom to volume.zarr: both or nothing."""
    from em_blocks.kernels.phantom import phantom

    made = phantom(SHAPE, voxel_size=VOXEL_SIZE, seed=SEED)
    partial = folder / "volume.zarr.partial"
    shutil.rmtree(partial, ignore_errors=True)
    for name in ("raw", "neurons"):
        values = getattr(made, name)
        volume = Volume.create(
            str(partial / name), shape=values.shape, dtype=values.dtype, frame=Frame(VOXEL_SIZE),
            chunk_shape=BLOCK_SHAPE,
        )
        volume.write(volume.box, values)
    partial.rename(folder / "volume.zarr")


def write_config(folder: Path) -> Path:
    """Write predict.json, unless it is there: the reader may have changed it."""
    path = folder / "predict.json"
    if not path.exists():
        values = {
            "kind": "predict",
            "run": "demo",
            "raw": "volume.zarr/raw",
            "setup": str(SETUP),
            "checkpoint": "best",
            "output": "predictions.zarr",
            "block_shape": BLOCK_SHAPE,
            "num_workers": 2,
        }
        path.write_text(json.dumps(values, indent=2) + "\n")
    return path


def read_result(folder: Path, predictions: str) -> Result:
    """Read all volumes; membranes are as thick in the truth as they were in training."""
    from em_blocks.kernels.affinities import erode_labels
    from em_blocks.training.setup import Setup

    raw, neurons = (Volume.open(str(folder / "volume.zarr" / name)) for name in ("raw", "neurons"))
    affinities = Volume.open(predictions)
    rim = Setup.from_folder(SETUP).config.heads["affinities"].boundary
    return Result(
        raw=raw.read(raw.box),
        truth=erode_labels(neurons.read(neurons.box), rim),
        affinities=affinities.read(affinities.box) / np.float32(affinities.scale),
        neighborhood=affinities.attributes["neighborhood"],
    )


def show_scores(result: Result) -> float:
    """Print how well cut pairs of voxels are found; the mean average precision of all channels."""
    from em_blocks.kernels.affinities import affinities
    from em_blocks.training.scores import average_precision, f1

    click.echo("Pairs of voxels that a membrane separates, predicted against truth:")
    precisions = []
    for shift, predicted, joined, known in zip(
        result.neighborhood, result.affinities, *affinities(result.truth, result.neighborhood),
        strict=True,
    ):
        probability, cut = 1 - predicted[known > 0], joined[known > 0] == 0
        precisions.append(average_precision(probability, cut))
        click.echo(
            f"  partner {shift!s:>11} voxels away: average precision {precisions[-1]:.3f}, "
            f"F1 {f1(probability > 0.5, cut):.3f}"
        )
    return float(np.mean(precisions))


def draw(result: Result, path: Path, precision: float) -> None:
    """Write a picture of the middle section: raw, predicted membrane, truth."""
    from em_blocks.kernels.drawing import grey_picture, label_picture, panel

    z = len(result.raw) // 2
    nearest = [result.neighborhood.index(shift) for shift in ([0, -1, 0], [0, 0, -1])]
    membrane = 1 - result.affinities[nearest, z].mean(axis=0)
    pictures = {
        "raw": grey_picture(result.raw[z], high=255),
        "predicted membrane": grey_picture(membrane),
        "ground truth": label_picture(result.truth[z]),
    }
    title = (
        f"em_blocks demo: section {z} of {len(result.raw)}, voxels of 40 x 4 x 4 nm, "
        f"average precision of affinities {precision:.3f}"
    )
    sheet = panel(pictures, title=title, pixel_nm=VOXEL_SIZE[2])
    Image.fromarray(sheet).save(path)
    click.echo(f"Picture: {path}")


def show_next_steps(config: Path) -> None:
    """Print three commands, written so that they work in this terminal."""
    # An environment that is not activated is not on PATH.
    bin = "" if shutil.which("em-blocks") else f"{os.path.relpath(Path(sys.executable).parent)}/"
    click.echo(NEXT_STEPS.format(bin=bin, config=config))


if __name__ == "__main__":
    main()
