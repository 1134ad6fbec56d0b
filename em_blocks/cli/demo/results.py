"""Results of the demo: read, scored against the truth of its volume, and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import numpy as np
from PIL import Image

from em_blocks.cli.demo.synapses import pictures as synapse_pictures
from em_blocks.volumes import Volume

if TYPE_CHECKING:
    from em_blocks.cli.demo.synapses import Partners
    from em_blocks.tasks.segmentation.segment import Segment


class Result(NamedTuple):
    """Volumes that the demo scores and draws, (z, y, x); small enough to be in memory."""

    raw: np.ndarray  # uint8
    voxel_size: tuple[float, float, float]  # nm
    neurons: np.ndarray  # the truth
    interior: np.ndarray  # neurons, 0 where the network should see a membrane
    affinities: np.ndarray  # (c, z, y, x) float32, 0..1
    neighborhood: list[list[int]]  # (c, 3) voxels (z, y, x)
    fragments: np.ndarray
    segments: np.ndarray


def read_result(folder: Path, setup: Path, segment: Segment) -> Result:
    """Read all volumes; the interior has membranes as thick as in the training of `setup`."""
    from em_blocks.kernels.segmentation.affinities import erode_labels
    from em_blocks.models.setup import Setup

    def read(path: str) -> np.ndarray:
        volume = Volume.open(path)
        return volume.read(volume.box)

    neurons = read(str(folder / "volume.zarr/neurons"))
    affinities = Volume.open(segment.affinities)
    rim = Setup.from_folder(setup).config.heads["affinities"].boundary
    fragments = segment.steps()[0].output
    return Result(
        raw=read(str(folder / "volume.zarr/raw")),
        voxel_size=affinities.frame.voxel_size,
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
    """Write a picture of one section, from raw to segments and partners, and of errors."""
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
        **synapse_pictures(folder, raw, z, partners),
    }
    title = (
        f"em_blocks demo: section {z} of {len(result.raw)}, voxels of 40 x 4 x 4 nm, "
        f"average precision of affinities {precision:.3f}"
    )
    sheet = panel(pictures, title=title, pixel_nm=result.voxel_size[2], width=384, columns=4)
    # 256 colours are enough for grey values and pale labels, and take a third of the bytes.
    path = folder / "panel.png"
    Image.fromarray(sheet).quantize(256, kmeans=1).save(path, optimize=True)
    click.echo(f"Picture: {path}")


def _section(result: Result, partners: Partners) -> int:
    """Return the section with most true postsynaptic sites; of equals, the one nearest to the middle."""
    sections = np.floor(partners.truth.post[:, 0] / result.voxel_size[0]).astype(int)
    count = np.bincount(sections, minlength=len(result.raw))
    away = np.abs(np.arange(len(count)) - len(count) // 2)
    return int(np.lexsort((away, -count))[0])
