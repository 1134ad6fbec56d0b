"""``em-blocks evaluate mask``: a predicted mask against truth, voxel by voxel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from em_blocks.cli.common import shows_errors
from em_blocks.cli.evaluation.common import (
    blocks_here,
    check_form,
    config_options,
    folder_of,
    output_option,
    print_written,
    scored_on_workers,
)
from em_blocks.cli.params import Numbers, Steps
from em_blocks.evaluation.mask import MaskScores, count_here, score, write_results
from em_blocks.json_text import json_text
from em_blocks.tasks.evaluation.count_mask import CountMask

_IDS = Numbers(int, "1,2,3: ids")
_POSITION = Numbers(float, "z,y,x in nm, for example 1400,0,0", count=3)
_THRESHOLDS = Steps(float, "0.3,0.5,0.7, or first:last:step such as 0.1:0.9:0.1", least=0)
_SEVERAL = ("thresholds", "ids", "truth_ids", "ignore")


@click.command()
@click.option("--prediction", metavar="VOLUME", help="Probabilities, a mask, or ids.")
@click.option("--truth", metavar="VOLUME", help="True mask or ids.")
@click.option("--metric-mask", "metric_masks", multiple=True, metavar="VOLUME",
              help="Voxels where it is 0 do not count; may be repeated.")
@click.option("--mask", metavar="VOLUME", help="Specimen: nothing is scored where it is 0.")
@click.option("--threshold", type=click.FloatRange(0, 1, min_open=True),
              help="From this probability on a voxel is of the object. Default: 0.5.")
@click.option("--thresholds", type=_THRESHOLDS, metavar="LIST",
              help="Score these too: 0.3,0.5,0.7 or 0.1:0.9:0.1.")
@click.option("--channel", metavar="NUMBER|CLASS", help="Of the prediction, if it has several.")
@click.option("--ids", type=_IDS, metavar="LIST",
              help="Ids of the prediction that are objects. Default: all but 0.")
@click.option("--truth-ids", type=_IDS, metavar="LIST",
              help="Ids of truth that are objects. Default: all but 0.")
@click.option("--ignore", type=_IDS, metavar="LIST", help="Ids of truth that are not scored.")
@click.option("--roi", nargs=2, type=_POSITION, metavar="OFFSET SHAPE",
              help="Only this region, nm, each as z,y,x.")
@output_option("evaluation.json, sections.csv, and curve.csv and a picture of several thresholds")
@click.option("--sections", is_flag=True, help="Print the scores of every section too.")
@config_options
@shows_errors
def mask(context: click.Context, config: Path | None, overrides: tuple[str, ...], as_json: bool,
         overwrite: bool, adopt: bool, sections: bool, **options) -> None:
    """Score a predicted mask: Dice (F1), Jaccard (IoU), precision and recall of its voxels.

    Either name volumes, to count them in this process block by block; or a CONFIG (JSON), to count
    blocks on workers and keep tables and scores. VOLUME is path.zarr/dataset, file.h5:dataset, or a
    file .npy, .tif, .mrc, .nii or .xz; masks are the first of these. Volumes are compared where they
    overlap, in nm. A voxel counts where the specimen and all metric masks are not 0, and truth is no
    ignored id.

    A score without any voxel to be computed from is null.
    """
    check_form(context, config, options, needed=("prediction", "truth"))
    if config is None:
        task = CountMask.from_dict(_as_config(options), source="The command line")
        found = score(task, count_here(task, blocks_here(task, options["output"])))
        folder = options["output"]
    else:
        task = CountMask.from_file(config, overrides)
        found, folder = _on_workers(task, as_json, overwrite, adopt), folder_of(task)
    written = [] if folder is None else write_results(folder, found)
    if as_json:
        click.echo(json_text(_document(found, sections), indent=2))
    else:
        _show(found, sections, written)


def _as_config(options: dict) -> dict:
    values = {name: value for name, value in options.items() if value is not None}
    values |= {name: list(values[name]) for name in _SEVERAL if name in values}
    if options["roi"]:
        values["roi"] = dict(zip(("offset", "shape"), options["roi"], strict=True))
    if (options["channel"] or "").isdigit():
        values["channel"] = int(options["channel"])
    return values | {
        "kind": "count_mask", "run": "evaluation", "metric_masks": list(options["metric_masks"]),
        "output": str(options["output"] or "evaluation"),
    }


def _on_workers(task: CountMask, as_json: bool, overwrite: bool, adopt: bool) -> MaskScores:
    return scored_on_workers(
        task, as_json, {"overwrite": overwrite, "adopt": adopt},
        lambda done: score(task, task.stored(done)),
        lambda found: {"mask": found.document()},
    )


def _document(found: MaskScores, sections: bool) -> dict:
    """Return the scores as JSON, with a curve and sections if they were asked for."""
    curve = {"thresholds": found.curve_document()} if len(found.curve) > 1 else {}
    return found.headline() | curve | ({"sections": found.section_document()} if sections else {})


def _show(found: MaskScores, sections: bool, written: Iterable[Path]) -> None:
    console = Console()
    table = Table(title="Mask against truth")
    for name in ("", "Dice (F1)", "Jaccard (IoU)", "precision", "recall", "voxels of truth"):
        table.add_column(name, justify="right" if name else "left")
    _add(table, "all" if found.threshold is None else f"threshold {found.threshold:g}", found.total)
    if found.everywhere != found.total:
        _add(table, "without metric masks", found.everywhere)
    for threshold, counts in found.curve if len(found.curve) > 1 else ():
        _add(table, f"threshold {threshold:g}", counts)
    for section in found.sections if sections else ():
        _add(table, f"section {section.number} ({section.z_nm:g} nm)", section.found)
    console.print(table)
    if len(found.curve) > 1 and found.best is not None:
        console.print(f"Highest Dice: {found.best[1].dice:.4f} at the threshold {found.best[0]:g}")
    print_written(console, written)


def _add(table: Table, name: str, counts) -> None:
    values = ("-" if value is None else f"{value:.4f}" for value in counts.scores().values())
    table.add_row(name, *values, f"{counts.tp + counts.fn:,}")
