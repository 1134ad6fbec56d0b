"""``em-blocks evaluate``: scores of results against truth."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from em_blocks.cli.common import shows_errors
from em_blocks.cli.evaluation.common import (
    ID,
    blocks_here,
    check_form,
    config_options,
    folder_of,
    output_option,
    print_written,
    scored_on_workers,
)
from em_blocks.cli.params import Numbers, options_from
from em_blocks.errors import ConfigError
from em_blocks.evaluation.segmentation import Scores, count_here, score, write_results
from em_blocks.evaluation.segmentation import as_json as all_scores
from em_blocks.json_text import json_text
from em_blocks.tasks.evaluation.count_overlaps import CountOverlaps
from em_blocks.volumes.skeletons.swc_files import NAMES

_NAMED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9_.-]*)=(.+)$")
_SHOWN_OBJECTS = 5
_LATE = {
    "checkpoints": "checkpoints", "clefts": "clefts", "connectivity": "connectivity",
    "instances": "instances", "mask": "mask", "synapses": "partners",
}
_POSITION = Numbers(float, "z,y,x in nm, for example 1400,0,0", count=3)


class _Ids(click.ParamType):
    """An id, or "none" to ignore nothing."""

    name = "id"

    def convert(self, value, param, ctx):
        if isinstance(value, int) or value == "none":
            return value
        return ID.convert(value, param, ctx)


class _Unit(click.ParamType):
    """A name, a number of nm, or three with commas."""

    name = "unit"

    def convert(self, value, param, ctx):
        if value in NAMES:
            return value
        try:
            numbers = [float(number) for number in value.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 3):
            names = ", ".join(NAMES)
            self.fail(f"{value!r} is neither {names} nor a number of nm nor z,y,x.", param, ctx)
        return numbers[0] if len(numbers) == 1 else numbers


class _Evaluations(click.Group):
    """Imports a command when it is used: numba, which some need, takes a second to load."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_LATE])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _LATE:
            return super().get_command(ctx, name)
        return getattr(importlib.import_module(f"em_blocks.cli.evaluation.{_LATE[name]}"), name)


@click.group(name="evaluate", cls=_Evaluations)
def main() -> None:
    """Compare results with truth."""


@main.command()
@click.option("--segmentation", "segmentations", multiple=True, metavar="[NAME=]VOLUME",
              help="Segments; may be repeated, for a curve over the numbers that end the names.")
@options_from(
    CountOverlaps, "truth", "ignore_segmentation", "border_nm", ignore=_Ids(),
    skeletons=click.Path(exists=True, path_type=Path), skeleton_unit=_Unit(),
)
@click.option("--roi", nargs=2, type=_POSITION, metavar="OFFSET SHAPE",
              help="Only this region, nm, each as z,y,x.")
@output_option("evaluation.json, the worst objects as CSV, and pictures")
@config_options
@shows_errors
def segmentation(context: click.Context, config: Path | None, overrides: tuple[str, ...],
                 as_json: bool, overwrite: bool, adopt: bool, **options) -> None:
    """Score segmentations against true neurons: VOI, adapted Rand error, worst objects.

    Either name volumes with --segmentation and --truth, to count them in this process; or a
    CONFIG (JSON), to count blocks on workers and keep tables and scores. VOLUME is
    path.zarr/dataset, or file.h5:dataset; if that file has a table 'transforms' beside the
    dataset, its bodies are compared. Volumes are compared where they overlap, in nm.

    VOI split is H(segmentation | truth), VOI merge is H(truth | segmentation), in bits. Voxels
    with truth 0 are not scored unless --ignore says otherwise (none for no id); segment 0 is a
    segment like any other. The adapted Rand error is that of scikit-image; SNEMI3D and CREMI take
    every voxel of segment 0 for an object of its own.
    """
    check_form(context, config, options, needed=("segmentations", "truth"))
    if config is None:
        task = CountOverlaps.from_dict(_as_config(options), source="The command line")
        scores, folder = _score_here(task, options["output"]), options["output"]
    else:
        task = CountOverlaps.from_file(config, overrides)
        scores = _score_on_workers(task, as_json, {"overwrite": overwrite, "adopt": adopt})
        folder = folder_of(task)
    written = [] if folder is None else write_results(folder, task, scores)
    _show(task, scores, written, as_json)


def _score_here(task: CountOverlaps, output: Path | None) -> list[Scores]:
    """Count in this process."""
    counted = count_here(task, blocks_here(task, output))
    return score(task, {name: partial(list, [table]) for name, table in counted.items()})


def _score_on_workers(
    task: CountOverlaps, as_json: bool, claim: dict[str, bool]
) -> list[Scores]:
    return scored_on_workers(
        task, as_json, claim,
        lambda done: score(
            task, {name: partial(task.stored, name, done) for name in task.segmentations}
        ),
        lambda scores: {found.name: found.document() for found in scores},
    )


def _as_config(options: dict) -> dict:
    values = {
        "kind": "count_overlaps", "run": "evaluation", "truth": options["truth"],
        "segmentations": _named(options["segmentations"]),
        "output": str(options["output"] or "evaluation"),
        "ignore": [id for id in options["ignore"] if id != "none"],
        "ignore_segmentation": list(options["ignore_segmentation"]),
        "border_nm": options["border_nm"],
        "skeletons": options["skeletons"], "skeleton_unit": options["skeleton_unit"],
    }
    if options["roi"]:
        values["roi"] = dict(zip(("offset", "shape"), options["roi"], strict=True))
    return values


def _named(segmentations: Iterable[str]) -> dict[str, str]:
    """Return volumes by the given name, else by the last part of their path."""
    named = {}
    for text in segmentations:
        found = _NAMED.match(text)
        name, path = found.groups() if found else (_last_part(text), text)
        if name in named:
            raise ConfigError(
                f"Two segmentations have the name {name!r}: {named[name]} and {path}. Name them "
                "apart: --segmentation NAME=VOLUME."
            )
        named[name] = path
    return named


def _last_part(path: str) -> str:
    return re.sub("[^A-Za-z0-9_.-]", "_", re.split("[/:]", path.rstrip("/:"))[-1]).lstrip("_.-")


def _show(
    task: CountOverlaps, scores: list[Scores], written: Iterable[Path], as_json: bool
) -> None:
    if as_json:
        one = len(scores) == 1
        click.echo(json_text(scores[0].document() if one else all_scores(task, scores), indent=2))
        return
    console = Console()
    console.print(_scores_table(scores))
    best = min(scores, key=lambda item: sum(item.evaluation.voi))
    console.print(_objects_table(best, "splits", "neuron", "segments"))
    console.print(_objects_table(best, "merges", "segment", "neurons"))
    print_written(console, written)


def _scores_table(scores: list[Scores]) -> Table:
    """Return one column per segmentation, one row per figure with its unit."""
    table = Table(title="Segmentation against truth")
    table.add_column("")
    for found in scores:
        table.add_column(found.name, justify="right")
    found = [item.evaluation for item in scores]
    table.add_row("VOI split (bits)", *(f"{e.voi.split:.4f}" for e in found))
    table.add_row("VOI merge (bits)", *(f"{e.voi.merge:.4f}" for e in found))
    table.add_row("VOI (bits)", *(f"{sum(e.voi):.4f}" for e in found))
    table.add_row("adapted Rand error", *(f"{e.arand.error:.4f}" for e in found))
    table.add_row("  as SNEMI3D, CREMI", *(f"{e.arand_cremi.error:.4f}" for e in found))
    table.add_row("voxels scored", *(f"{e.n_voxels:,}" for e in found))
    table.add_row("voxels ignored", *(f"{e.n_ignored:,}" for e in found))
    table.add_row("segments", *(f"{e.n_segments:,}" for e in found))
    table.add_row("neurons", *(f"{e.n_neurons:,}" for e in found))
    if scores[0].run_length is not None:
        runs = [item.run_length for item in scores]
        table.add_row("expected run length (nm)", *(f"{r['expected_nm']:,.0f}" for r in runs))
        table.add_row("  without errors (nm)", *(f"{r['perfect_nm']:,.0f}" for r in runs))
        table.add_row("merging segments", *(f"{r['merging_segments']:,}" for r in runs))
        table.add_row("nodes outside", *(f"{r['nodes_outside']:,}" for r in runs))
    return table


def _objects_table(found: Scores, side: str, object_name: str, parts: str) -> Table:
    """Return the worst splits or merges of a segmentation."""
    table = Table(title=f"Worst {side} of {found.name}")
    for name in (object_name, "voxels", "bits", parts):
        table.add_column(name, justify="right")
    table.add_column(f"largest {parts} (voxels)")
    for item in getattr(found.evaluation, f"worst_{side}")[:_SHOWN_OBJECTS]:
        largest = ", ".join(f"{id} ({voxels:,})" for id, voxels in item.largest[:3])
        table.add_row(str(item.id), f"{item.voxels:,}", f"{item.bits:.4f}", str(item.n_parts), largest)
    return table
