"""``em-blocks evaluate clefts``: predicted clefts against true ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from em_blocks.cli.common import json_option, shows_errors
from em_blocks.cli.evaluation.common import require_inputs, with_progress
from em_blocks.json_text import json_text

if TYPE_CHECKING:
    from em_blocks.kernels.evaluation.cleft_distances import CleftScores

# scipy, which the tasks need, takes half a second to load: other commands shall not wait for it.

@click.command()
@click.option("--prediction", required=True, metavar="VOLUME", help="Predicted clefts, by id.")
@click.option("--truth", required=True, metavar="VOLUME", help="True clefts, by id.")
@click.option("--far-nm", type=click.FloatRange(min=0), default=200, show_default=True,
              help="Voxels farther than this from the other side are wrong.")
@json_option
@shows_errors
def clefts(prediction: str, truth: str, far_nm: float, as_json: bool) -> None:
    """Measure how far predicted clefts are from true ones, and these from them, as CREMI does.

    VOLUME is path.zarr/dataset, or file.h5:dataset. Volumes are compared where they overlap, in nm.
    The score is the mean of both mean distances, nm; lower is better.
    """
    from em_blocks.evaluation.clefts import evaluate_clefts

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
