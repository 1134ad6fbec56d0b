"""A whole job on a volume of its own, up to synaptic partners: ``em-blocks demo [FOLDER]``."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import em_blocks.setups
from em_blocks.cli.common import load_config, print_report, shows_errors
from em_blocks.cli.demo import synapses
from em_blocks.cli.demo.results import draw, read_result, show_precision, show_scores
from em_blocks.geometry import Frame

if TYPE_CHECKING:
    from em_blocks.runtime.runs.report import RunReport
    from em_blocks.tasks.base import RunConfig

SETUP = Path(em_blocks.setups.__file__).parent / "affinities_anisotropic"
SHAPE, SEED, SYNAPSES_PER_UM3 = (32, 384, 384), 2026, 8.0
VOXEL_SIZE = (40.0, 4.0, 4.0)
BLOCK_SHAPE = (16, 128, 128)
# Chosen on volumes of other seeds (301, 302, 303): mean VOI 0.54 bits, within 0.01 of the best of all
# that was tried. Flooding in 3-D gives 0.1 more, since sections are ten times thicker than pixels; a
# mutex watershed 1.6 more, which leaves membranes of five pixels in small pieces.
SEGMENTATION = {
    "context": [2, 16, 16],
    "fragments": {"method": "watershed", "dimensions": 2, "low": 0.0, "high": 0.999, "small": 50},
    "edges": {"long_range_weight": 1.0},
    "thresholds": [0.8],
}
NEXT_STEPS = """
Run it again; finished blocks are skipped:
  {bin}em-blocks predict {predict}
Segments at another threshold; fragments and graph are there already:
  {bin}em-blocks segment {segment} --threshold 0.6
See how far a run is, also while it runs:
  {bin}em-blocks status {segment}
Who connects to whom, as a table and a picture:
  {bin}em-blocks export graph {extract_synapses} --output connectome.graphml
What cutting into blocks costs:
  {bin}em-blocks audit {segment}
Ask the database, here for the three slowest blocks (mongosh takes the same address):
  {bin}python -c 'import pymongo, sys; blocks = pymongo.MongoClient(sys.argv[1]).em_blocks.blocks
for block in blocks.find({{"run": "demo"}}, {{"seconds": 1}}).sort("seconds.compute", -1).limit(3):
    print(block)' "$({bin}em-blocks db start {predict})"
"""


@click.command(name="demo")
@click.argument("folder", default="demo", type=click.Path(file_okay=False, path_type=Path))
@shows_errors
def main(folder: Path) -> None:
    """Make a small EM-like volume in FOLDER, segment it and find its synapses, block by block.

    Repeating the command computes only what is missing.
    """
    from em_blocks.db.connect import database_uri

    if not (folder / "volume.zarr").exists():
        click.echo(f"Making a volume of {SHAPE} voxels (z, y, x): {folder / 'volume.zarr'}")
        make_volume(folder)
    first = load_config(write_config(folder, "predict.json", prediction()))
    # Held meanwhile: every run would start and stop the embedded server.
    with database_uri(first.db_host, first.home):
        _run(first)
        segment = _run_new(folder, "segment.json", segmentation())
        segments = os.path.relpath(segment.segments_path(segment.thresholds[-1]), segment.home)
        _run_new(folder, "predict_synapses.json", synapses.prediction(BLOCK_SHAPE))
        extract = _run_new(folder, "extract_synapses.json", synapses.extraction(BLOCK_SHAPE))
        _run_new(folder, "map_synapses.json", synapses.mapping(segments))
        partners = synapses.read_partners(folder, extract)
    result = read_result(folder, SETUP, segment)
    precision = show_precision(result)
    show_scores(result)
    synapses.show_scores(partners)
    draw(result, folder, partners, precision)
    show_next_steps(folder)


def _run_new(folder: Path, name: str, values: dict) -> RunConfig:
    """Write a config, unless it is there, and run it."""
    config = load_config(write_config(folder, name, values))
    _run(config)
    return config


def _run(config: RunConfig) -> None:
    """Run all steps of a config; end the demo if one fails."""
    from em_blocks.runtime.scheduler.run import run_steps

    reports = run_steps(config.steps())
    for report in reports:
        _stop_unless_done(report)
    if len(reports) == 1:
        print_report(reports[0], as_json=False)


def _stop_unless_done(report: RunReport) -> None:
    if not report.ok:
        print_report(report, as_json=False)
        sys.exit(report.exit_code)


def make_volume(folder: Path) -> None:
    """Write a phantom to volume.zarr, all of it or nothing."""
    from em_blocks.export.phantom import write_zarr
    from em_blocks.kernels.synthetic.volume import phantom

    folder.mkdir(parents=True, exist_ok=True)
    made = phantom(
        SHAPE, voxel_size=VOXEL_SIZE, seed=SEED, synapses_per_um3=SYNAPSES_PER_UM3
    )
    write_zarr(folder / "volume.zarr", made, Frame(VOXEL_SIZE))


def prediction() -> dict:
    """Return the contents of predict.json; paths are relative to it."""
    return {
        "kind": "predict",
        "run": "demo",
        "raw": "volume.zarr/raw",
        "setup": str(SETUP),
        "checkpoint": "best",
        "output": "predictions.zarr",
        "block_shape": BLOCK_SHAPE,
        "num_workers": 2,
    }


def segmentation() -> dict:
    """Return the contents of segment.json."""
    return {
        "kind": "segment",
        "run": "demo_segment",
        "affinities": "predictions.zarr/affinities",
        "output": "segmentation.zarr",
        "block_shape": BLOCK_SHAPE,
        **SEGMENTATION,
        "chunk_shape": BLOCK_SHAPE,
        "num_workers": 2,
    }


def write_config(folder: Path, name: str, values: dict) -> Path:
    """Write a config, unless it is there: the reader may have changed it."""
    path = folder / name
    if not path.exists():
        path.write_text(json.dumps(values, indent=2) + "\n")
    return path


def show_next_steps(folder: Path) -> None:
    """Print commands, written so that they work in this terminal."""
    # An environment that is not activated is not on PATH.
    bin = "" if shutil.which("em-blocks") else f"{os.path.relpath(Path(sys.executable).parent)}/"
    configs = {name: folder / f"{name}.json" for name in ("predict", "segment", "extract_synapses")}
    click.echo(NEXT_STEPS.format(bin=bin, **configs))
