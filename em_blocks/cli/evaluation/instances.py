"""``em-blocks evaluate instances``: predicted instances against true ones."""

from __future__ import annotations

from functools import partial
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
    with_progress,
)
from em_blocks.cli.params import Numbers, options_from
from em_blocks.evaluation.instance_report import write_results
from em_blocks.evaluation.instances import InstanceScores, LocatedError, count_here, score
from em_blocks.json_text import json_text
from em_blocks.kernels.evaluation.instances.bootstrap import LEVEL
from em_blocks.kernels.evaluation.object_matching import SizeBin
from em_blocks.tasks.evaluation.count_instances import CountInstances

_POSITION = Numbers(float, "z,y,x in nm, for example 1400,0,0", count=3)
_VOXELS = Numbers(int, "z,y,x in voxels, for example 14,0,0", count=3, least=0)
_SHOWN_ERRORS = 5
_REPEATED = {"metric_mask": "metric_masks", "size_bound": "size_bounds"}


@click.command()
@click.option("--prediction", metavar="VOLUME", help="Predicted instances, by id.")
@click.option("--truth", metavar="VOLUME", help="True instances, by id.")
@click.option("--iou", multiple=True, type=click.FloatRange(0, 1, min_open=True), default=(0.5, 0.75),
              show_default=True, help="Least intersection over union of a match; may be repeated. The "
              "first one gives the main scores and the errors.")
@click.option("--metric-mask", multiple=True, metavar="VOLUME",
              help="Voxels where it is 0 do not count; may be repeated.")
@click.option("--mask", metavar="VOLUME", help="Specimen: there are no objects where it is 0.")
@click.option("--ignore", multiple=True, type=click.IntRange(min=-(2**63), max=2**64 - 1),
              metavar="ID", help="Voxels with this id in truth do not count; may be repeated.")
@options_from(CountInstances, "min_voxels", "matching", "border")
@click.option("--margin", type=_VOXELS, default=(0, 0, 0), metavar="Z,Y,X",
              help="Do not compare this many voxels at every face.")
@click.option("--size-bound", multiple=True, type=click.IntRange(min=1), metavar="VOXELS",
              help="Also score objects below and above this size; may be repeated.")
@click.option("--roi", nargs=2, type=_POSITION, metavar="OFFSET SHAPE",
              help="Only this region, nm, each as z,y,x.")
@click.option("--raw", metavar="VOLUME", help="Image to show in the pictures.")
@output_option("evaluation.json, objects.csv, errors.csv, and pictures of the worst errors")
@config_options
@shows_errors
def instances(context: click.Context, config: Path | None, overrides: tuple[str, ...],
              as_json: bool, overwrite: bool, adopt: bool, **options) -> None:
    """Find out how many predicted instances are right, and what is wrong with the others.

    Either name volumes, to measure them in this process block by block; or a CONFIG (JSON), to measure
    blocks on workers and keep tables and scores. VOLUME is path.zarr/dataset, or file.h5:dataset.
    Volumes are compared where they overlap, in nm.

    AP is tp / (tp + fp + fn), PQ the sum of the IoU of matched pairs / (tp + fp/2 + fn/2). A score
    of nothing is null. Intervals hold 95 % of 1000 draws of the objects with replacement.
    """
    check_form(context, config, options, needed=("prediction", "truth"))
    if config is None:
        task = CountInstances.from_dict(_as_config(options), source="The command line")
        folder = options["output"]
        found = score(task, count_here(task, blocks_here(task, folder)), shown=_shown)
    else:
        task = CountInstances.from_file(config, overrides)
        found, folder = _on_workers(task, as_json, overwrite, adopt), folder_of(task)
    written = [] if folder is None else write_results(folder, task, found)
    if as_json:
        click.echo(json_text(found.document(), indent=2))
    else:
        _show(found, written)


_shown = partial(with_progress, label="Finding errors")


def _as_config(options: dict) -> dict:
    values = {_REPEATED.get(key, key): list(value) if isinstance(value, tuple) else value
              for key, value in options.items() if value is not None}
    if options["roi"]:
        values["roi"] = dict(zip(("offset", "shape"), options["roi"], strict=True))
    return values | {
        "kind": "count_instances", "run": "evaluation", "output": str(options["output"] or "evaluation")
    }


def _on_workers(task: CountInstances, as_json: bool, overwrite: bool, adopt: bool) -> InstanceScores:
    return scored_on_workers(
        task, as_json, {"overwrite": overwrite, "adopt": adopt},
        lambda done: score(task, task.stored(done), shown=_shown),
        lambda found: {"instances": found.document()},
    )


# -- on the terminal ----------------------------------------------------------------------


def _show(found: InstanceScores, written: list[Path]) -> None:
    console = Console()
    console.print(_scores_table(found))
    for scores, bins in zip(found.scores, found.bins, strict=True):
        for bin in bins if len(bins) > 1 else ():
            _print(console, _bin_line(scores.iou, bin))
    _print(console, "Voxels of any object: " + ", ".join(
        f"{name} {_text(getattr(found.voxels, key))}{_between(found, f'voxel_{key}')}"
        for name, key in (("precision", "precision"), ("recall", "recall"), ("F", "fscore"),
                          ("IoU", "iou"))
    ))
    precision = ", ".join(f"{_text(v)} at {k}" for k, v in found.average_precision.items())
    _print(console, f"Average precision: {precision}")
    _print(console, f"Errors at IoU {found.scores[0].iou:g}: " + ", ".join(
        f"{kind} {n:,}" for kind, n in found.error_counts.items()
    ))
    for error in found.errors[:_SHOWN_ERRORS]:
        _print(console, f"  {_error_line(error)}")
    if found.note:
        _print(console, f"Note: {found.note}")
    print_written(console, written)


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _scores_table(found: InstanceScores) -> Table:
    table = Table(title="Instances at their least IoU")
    table.add_column("")
    for scores in found.scores:
        table.add_column(f"{scores.iou:g}", justify="right")
        table.add_column(f"{LEVEL:.0%}")
    for name in ("precision", "recall", "fscore", "average_precision", "panoptic_quality", "mean_iou"):
        cells = (
            cell for scores, limits in zip(found.scores, found.intervals, strict=True)
            for cell in (_text(getattr(scores, name)), _range(limits.limits.get(name)))
        )
        table.add_row(name.replace("_", " "), *cells)
    for label, name in (("right", "tp"), ("wrong", "fp"), ("not found", "fn")):
        cells = (cell for scores in found.scores for cell in (f"{getattr(scores, name):,}", ""))
        table.add_row(label, *cells)
    return table


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _range(limits: tuple[float, float] | None) -> str:
    return "" if limits is None else f"{limits[0]:.3f}-{limits[1]:.3f}"


def _between(found: InstanceScores, name: str) -> str:
    limits = _range(found.intervals[0].limits.get(name))
    return limits and f" ({limits})"


def _bin_line(iou: float, bin: SizeBin) -> str:
    end = "voxels and more" if bin.high is None else f"to {bin.high - 1:,} voxels"
    return (
        f"IoU {iou:g}, {bin.low:,} {end}: {bin.truth_found} of {bin.truth} true objects found, "
        f"{bin.predictions_right} of {bin.predictions} predicted ones right, F {_text(bin.fscore)}"
    )


def _error_line(error: LocatedError) -> str:
    sides = (("truth", error.truth), ("prediction", error.prediction))
    ids = ", ".join(f"{name} {' '.join(map(str, some))}" for name, some in sides if some)
    position = ", ".join(f"{value:.1f}" for value in error.position_nm)
    return f"{error.kind}: {ids}; {error.voxels:,} voxels, at {position} nm (zyx)"
