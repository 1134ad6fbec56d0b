"""``em-blocks evaluate objects`` and ``clefts``: predicted objects against true ones."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from em_blocks.cli.common import json_option, shows_errors
from em_blocks.cli.evaluation.common import (
    output_option,
    print_written,
    require_inputs,
    with_progress,
)
from em_blocks.cli.params import Numbers
from em_blocks.json_text import json_text
from em_blocks.runtime.runs.preflight import check_writable
from em_blocks.volumes.stores.apart import check_outside

if TYPE_CHECKING:
    from em_blocks.evaluation.objects import EvaluatedObjects
    from em_blocks.kernels.evaluation.cleft_distances import CleftScores
    from em_blocks.kernels.evaluation.object_matching import SizeBin

# scipy, which the tasks need, takes half a second to load: other commands shall not wait for it.

truth_option = click.option("--truth", required=True, metavar="VOLUME", help="True objects, by id.")
prediction_option = click.option("--prediction", required=True, metavar="VOLUME",
                                 help="Predicted objects, by id.")


_VOXELS = Numbers(int, "z,y,x in voxels, for example 14,0,0", count=3, least=0)


@click.command()
@prediction_option
@truth_option
@click.option("--iou", "ious", multiple=True, type=click.FloatRange(0, 1, min_open=True),
              default=[0.2, 0.5], show_default=True,
              help="Least intersection over union of a match; may be repeated.")
@click.option("--min-voxels", type=click.IntRange(min=1), default=1, show_default=True,
              help="Leave out smaller objects, in both volumes.")
@click.option("--matching", type=click.Choice(["one-to-one", "overlap"]), default="one-to-one",
              show_default=True, help="Whether one object can match several.")
@click.option("--margin", type=_VOXELS, default=(0, 0, 0),
              help="Do not compare this many voxels at every face.")
@click.option("--size-bound", "size_bounds", multiple=True, type=click.IntRange(min=1),
              metavar="VOXELS", help="Also score objects below and above this size; may be repeated.")
@output_option("evaluation.json and objects.csv")
@json_option
@shows_errors
def objects(output: Path | None, as_json: bool, size_bounds: tuple[int, ...], **options) -> None:
    """Find out how many predicted objects are right, by the voxels they share with true ones.

    VOLUME is path.zarr/dataset, or file.h5:dataset. Volumes are compared where they overlap, in nm.
    """
    from em_blocks.evaluation.objects import evaluate_objects, write_objects

    if any(a >= b for a, b in pairwise(size_bounds)):
        raise click.UsageError(f"--size-bound must rise, got {', '.join(map(str, size_bounds))}.")
    if output is not None:
        check_outside({name: options[name] for name in ("prediction", "truth")}, output)
        check_writable(output)
    require_inputs({name: options[name] for name in ("prediction", "truth")})
    found = evaluate_objects(size_bounds=size_bounds, shown=with_progress, **options)
    written = [] if output is None else write_objects(output, found)
    if as_json:
        click.echo(json_text(found.document(), indent=2))
    else:
        _show_objects(found, written)


def _show_objects(found: EvaluatedObjects, written: list[Path]) -> None:
    console, table = Console(), Table(title="Objects at their least IoU")
    table.add_column("")
    for score in found.scores:
        table.add_column(f"{score.iou:g}", justify="right")
    for name in ("precision", "recall", "fscore", "average_precision", "mean_iou"):
        values = (getattr(score, name) for score in found.scores)
        table.add_row(name.replace("_", " "), *(f"{value:.4f}" for value in values))
    for label, name in (("right", "tp"), ("wrong", "fp"), ("not found", "fn")):
        table.add_row(label, *(f"{getattr(score, name):,}" for score in found.scores))
    console.print(table)
    for score, bins in zip(found.scores, found.bins, strict=True):
        for bin in bins if len(bins) > 1 else ():
            console.print(_line(score.iou, bin), markup=False, highlight=False)
    voxels = found.voxels
    console.print(
        f"Voxels of any object: precision {voxels.precision:.4f}, recall {voxels.recall:.4f}, F "
        f"{voxels.fscore:.4f}, IoU {voxels.iou:.4f}, mean with background {voxels.voc:.4f}"
    )
    print_written(console, written)


def _line(iou: float, bin: SizeBin) -> str:
    end = "voxels and more" if bin.high is None else f"to {bin.high - 1:,} voxels"
    return (
        f"IoU {iou:g}, {bin.low:,} {end}: {bin.truth_found} of {bin.truth} true objects found, "
        f"{bin.predictions_right} of {bin.predictions} predicted ones right"
    )


@click.command()
@prediction_option
@truth_option
@click.option("--far-nm", type=click.FloatRange(min=0), default=200, show_default=True,
              help="Voxels farther than this from the other side are wrong.")
@json_option
@shows_errors
def clefts(prediction: str, truth: str, far_nm: float, as_json: bool) -> None:
    """Measure how far predicted clefts are from true ones, and these from them, as CREMI does.

    VOLUME is path.zarr/dataset, or file.h5:dataset. Volumes are compared where they overlap, in nm.
    The score is the mean of both mean distances, nm; lower is better.
    """
    from em_blocks.evaluation.objects import evaluate_clefts

    require_inputs({"prediction": prediction, "truth": truth})
    found = evaluate_clefts(prediction=prediction, truth=truth, far_nm=far_nm, shown=with_progress)
    if as_json:
        click.echo(json_text(_cleft_document(found, far_nm), indent=2))
    else:
        _show_clefts(found, far_nm)


def _cleft_document(found: CleftScores, far_nm: float) -> dict:
    return {
        "score_nm": found.score, "far_nm": far_nm,
        "false_positives": found.false_positives._asdict(),
        "false_negatives": found.false_negatives._asdict(),
    }


def _show_clefts(found: CleftScores, far_nm: float) -> None:
    table = Table(title="Clefts")
    for name in ("", "prediction to truth", "truth to prediction"):
        table.add_column(name, justify="right" if name else "left")
    sides = found.false_positives, found.false_negatives
    for label, name in (("mean distance (nm)", "mean"), ("median (nm)", "median"),
                        ("standard deviation (nm)", "std"), ("largest (nm)", "max")):
        values = (getattr(side, name) for side in sides)
        table.add_row(label, *("-" if value is None else f"{value:.2f}" for value in values))
    table.add_row(f"voxels farther than {far_nm:g} nm", *(f"{side.far:,}" for side in sides))
    table.add_row("voxels", *(f"{side.count:,}" for side in sides))
    console = Console()
    console.print(table)
    score = "-" if found.score is None else f"{found.score:.2f} nm"
    console.print(f"score (mean of both means): {score}")
