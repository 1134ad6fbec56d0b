"""A whole job on a volume of its own, up to synaptic partners: ``demo.py [FOLDER]``."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import numpy as np
from PIL import Image

import em_blocks.setups
from em_blocks.cli import demo_synapses
from em_blocks.cli.common import load_config, print_report, shows_errors
from em_blocks.geometry import Frame
from em_blocks.volumes import Volume

if TYPE_CHECKING:
    from em_blocks.cli.demo_synapses import Partners
    from em_blocks.runtime.runs.report import RunReport
    from em_blocks.tasks.base import RunConfig
    from em_blocks.tasks.segmentation.segment import Segment

SETUP = Path(em_blocks.setups.__file__).parent / "affinities_anisotropic"
SHAPE, SEED, SYNAPSES_PER_UM3 = (32, 384, 384), 2026, 8.0
VOXEL_SIZE = (40.0, 4.0, 4.0)
BLOCK_SHAPE = (16, 128, 128)
# Chosen on volumes of other seeds (301, 302, 303): mean VOI 0.54 bits, within 0.01 of the best of all
# that was tried. Flooding in 3-D gives 0.1 more, since sections are ten times thicker than pixels; a
# mutex watershed 1.6 more, which leaves membranes of five pixels in crumbs.
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


class Result(NamedTuple):
    """What the demo judges and draws, (z, y, x); small enough to be in memory as a whole."""

    raw: np.ndarray  # uint8
    neurons: np.ndarray  # the truth
    interior: np.ndarray  # neurons, 0 where the network should see a membrane
    affinities: np.ndarray  # (c, z, y, x) float32, 0..1
    neighborhood: list[list[int]]  # (c, 3) voxels (z, y, x)
    fragments: np.ndarray
    segments: np.ndarray


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
        _run_new(folder, "predict_synapses.json", demo_synapses.prediction(BLOCK_SHAPE))
        extract = _run_new(folder, "extract_synapses.json", demo_synapses.extraction(BLOCK_SHAPE))
        _run_new(folder, "map_synapses.json", demo_synapses.mapping(segments))
        partners = demo_synapses.read_partners(folder, extract)
    result = read_result(folder, segment)
    precision = show_precision(result)
    show_scores(result)
    demo_synapses.show_scores(partners)
    draw(result, folder, partners, precision)
    show_next_steps(folder)


def _run_new(folder: Path, name: str, values: dict) -> RunConfig:
    """Write a config, unless it is there, and run it."""
    config = load_config(write_config(folder, name, values))
    _run(config)
    return config


def _run(config: RunConfig) -> None:
    """Run all steps of a config; the demo ends where one does not end well."""
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
    """What predict.json holds; paths are relative to it."""
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
    """What segment.json holds."""
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


def read_result(folder: Path, segment: Segment) -> Result:
    """Read all volumes; membranes are as thick in the interior as they were in training."""
    from em_blocks.kernels.segmentation.affinities import erode_labels
    from em_blocks.models.setup import Setup

    def read(path: str) -> np.ndarray:
        volume = Volume.open(path)
        return volume.read(volume.box)

    neurons = read(str(folder / "volume.zarr/neurons"))
    affinities = Volume.open(segment.affinities)
    rim = Setup.from_folder(SETUP).config.heads["affinities"].boundary
    fragments = segment.steps()[0].output
    return Result(
        raw=read(str(folder / "volume.zarr/raw")),
        neurons=neurons,
        interior=erode_labels(neurons, rim),
        affinities=affinities.read(affinities.box) / np.float32(affinities.scale),
        neighborhood=affinities.attributes["neighborhood"],
        fragments=read(fragments),
        segments=read(segment.segments_path(segment.thresholds[-1])),
    )


def show_precision(result: Result) -> float:
    """Print how well cut pairs of voxels are found; the mean average precision of all channels."""
    from em_blocks.kernels.segmentation.affinities import affinities
    from em_blocks.models.scores.voxels import average_precision, f1

    click.echo("Pairs of voxels that a membrane separates, predicted against truth:")
    precisions = []
    for shift, predicted, joined, known in zip(
        result.neighborhood, result.affinities, *affinities(result.interior, result.neighborhood),
        strict=True,
    ):
        probability, cut = 1 - predicted[known > 0], joined[known > 0] == 0
        precisions.append(average_precision(probability, cut))
        click.echo(
            f"  partner {shift!s:>11} voxels away: average precision {precisions[-1]:.3f}, "
            f"F1 {f1(probability > 0.5, cut):.3f}"
        )
    return float(np.mean(precisions))


def show_scores(result: Result) -> None:
    """Print fragments and segments against the neurons, one column each."""
    from rich.console import Console
    from rich.table import Table

    from em_blocks.kernels.evaluation.contingency import count_overlaps
    from em_blocks.kernels.evaluation.segmentation_scores import evaluate

    found = []
    for labels in (result.fragments, result.segments):
        counted = count_overlaps(segmentation=labels, truth=result.neurons)
        found.append(evaluate(lambda counted=counted: [counted], ignore_truth=[]))
    table = Table(title=f"Against the {found[0].n_neurons} neurons of the volume")
    table.add_column("")
    for name in ("fragments", "segments"):
        table.add_column(name, justify="right")
    table.add_row("objects", *(f"{e.n_segments:,}" for e in found))
    table.add_row("voi_split (bits)", *(f"{e.voi.split:.3f}" for e in found))
    table.add_row("voi_merge (bits)", *(f"{e.voi.merge:.3f}" for e in found))
    table.add_row("arand", *(f"{e.arand.error:.3f}" for e in found))
    Console().print(table)


def draw(result: Result, folder: Path, partners: Partners, precision: float) -> None:
    """Write a picture of one section, from raw to segments and partners, and what is wrong."""
    from em_blocks.kernels.evaluation.seams import renamed_like
    from em_blocks.kernels.plots.sections import grey_picture, overlay_picture, panel

    z = _section(result, partners)
    nearest = [result.neighborhood.index(shift) for shift in ([0, -1, 0], [0, 0, -1])]
    raw = result.raw[z] / np.float32(255)
    # In the colours of the neurons that they are the largest part of.
    segments = renamed_like(result.segments, result.neurons)[z]
    wrong = grey_picture(raw)
    wrong[segments != result.neurons[z]] //= 2
    wrong[segments != result.neurons[z], 0] += 127
    pictures = {
        "raw": grey_picture(raw),
        "predicted membrane": grey_picture(1 - result.affinities[nearest, z].mean(axis=0)),
        "fragments": overlay_picture(raw, result.fragments[z]),
        "segments": overlay_picture(raw, segments),
        "ground truth": overlay_picture(raw, result.neurons[z]),
        "wrong segment (red)": wrong,
        **demo_synapses.pictures(folder, raw, z, partners),
    }
    title = (
        f"em_blocks demo: section {z} of {len(result.raw)}, voxels of 40 x 4 x 4 nm, "
        f"average precision of affinities {precision:.3f}"
    )
    sheet = panel(pictures, title=title, pixel_nm=VOXEL_SIZE[2], width=384, columns=4)
    # 256 colours are enough for grey values and pale labels, and take a third of the bytes.
    path = folder / "panel.png"
    Image.fromarray(sheet).quantize(256, kmeans=1).save(path, optimize=True)
    click.echo(f"Picture: {path}")


def _section(result: Result, partners: Partners) -> int:
    """The section with most true postsynaptic sites, the one nearest to the middle of equals."""
    sections = np.floor(partners.truth.post[:, 0] / VOXEL_SIZE[0]).astype(int)
    count = np.bincount(sections, minlength=len(result.raw))
    away = np.abs(np.arange(len(count)) - len(count) // 2)
    return int(np.lexsort((away, -count))[0])


def show_next_steps(folder: Path) -> None:
    """Print commands, written so that they work in this terminal."""
    # An environment that is not activated is not on PATH.
    bin = "" if shutil.which("em-blocks") else f"{os.path.relpath(Path(sys.executable).parent)}/"
    configs = {name: folder / f"{name}.json" for name in ("predict", "segment", "extract_synapses")}
    click.echo(NEXT_STEPS.format(bin=bin, **configs))


if __name__ == "__main__":
    main()
