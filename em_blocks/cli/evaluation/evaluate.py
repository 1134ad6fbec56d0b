"""``em-blocks evaluate``: scores of results against truth."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from em_blocks.cli.common import (
    json_option,
    opened_store,
    print_report,
    set_option,
    shows_errors,
)
from em_blocks.cli.evaluation.common import ID, check_form, require_inputs, with_progress
from em_blocks.cli.evaluation.connectivity import connectivity
from em_blocks.cli.evaluation.objects import clefts, objects
from em_blocks.cli.evaluation.partners import synapses
from em_blocks.config import is_url
from em_blocks.errors import ConfigError
from em_blocks.evaluation.segmentation import Scores, count_here, score, write_results
from em_blocks.evaluation.segmentation import as_json as all_scores
from em_blocks.json_text import json_text
from em_blocks.runtime.runs.preflight import check_writable
from em_blocks.tasks.evaluation.count_overlaps import CountOverlaps
from em_blocks.tasks.places import places_of
from em_blocks.volumes.skeletons.swc_files import NAMES
from em_blocks.volumes.stores.apart import check_outside

_NAMED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9_.-]*)=(.+)$")
_SHOWN_OBJECTS = 5


class _Ids(click.ParamType):
    """An id, or "none" to ignore nothing."""

    name = "id"

    def convert(self, value, param, ctx):
        if isinstance(value, int) or value == "none":
            return value
        return ID.convert(value, param, ctx)


class _Position(click.ParamType):
    """Three numbers with commas."""

    name = "z,y,x"

    def convert(self, value, param, ctx):
        try:
            z, y, x = map(float, value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not of the form z,y,x in nm, for example 1400,0,0.", param, ctx)
        return [z, y, x]


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


@click.group(name="evaluate")
def main() -> None:
    """Compare results with truth."""


main.add_command(connectivity)
main.add_command(clefts)
main.add_command(objects)
main.add_command(synapses)


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--segmentation", "segmentations", multiple=True, metavar="[NAME=]VOLUME",
              help="Segments; may be repeated, for a curve over the numbers that end the names.")
@click.option("--truth", metavar="VOLUME", help="Neurons.")
@click.option("--ignore", multiple=True, type=_Ids(), default=[0], show_default=True, metavar="ID",
              help="Do not score voxels with this id in the truth; may be repeated; none for no id.")
@click.option("--ignore-segmentation", multiple=True, type=ID, metavar="ID",
              help="Nor voxels with this id in the segmentation. Without it, 0 is a segment there.")
@click.option("--border-nm", type=click.FloatRange(min=0, min_open=True), metavar="NM",
              help="Nor voxels at most so far from the border of a neuron in their section (CREMI).")
@click.option("--roi", nargs=2, type=_Position(), metavar="OFFSET SHAPE",
              help="Only this region, nm, each as z,y,x.")
@click.option("--skeletons", type=click.Path(exists=True, path_type=Path), metavar="FILE_OR_FOLDER",
              help="SWC files, one neuron each: also give the expected run length.")
@click.option("--skeleton-unit", type=_Unit(), default="nm", show_default=True, metavar="UNIT",
              help="Of the positions in SWC files: nm, um, a number of nm, or three as z,y,x (voxels).")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Write evaluation.json, the worst objects as CSV, and pictures there.")
@set_option
@click.option("--overwrite", is_flag=True, help="With CONFIG: count all blocks again.")
@click.option("--adopt", is_flag=True, help="With CONFIG: keep counts although settings differ.")
@json_option
@shows_errors
@click.pass_context
def segmentation(context: click.Context, config: Path | None, overrides: tuple[str, ...],
                 overwrite: bool, adopt: bool, as_json: bool, **options) -> None:
    """Score segmentations against true neurons: VOI, adapted Rand error, worst objects.

    Either name volumes with --segmentation and --truth, to count them in this process; or a
    CONFIG (JSON), to count blocks on workers and keep tables and scores. VOLUME is
    path.zarr/dataset, or file.h5:dataset; if that file has a table 'transforms' beside the
    dataset, its bodies are compared. Volumes are compared where they overlap, in nm.

    VOI split is H(segmentation | truth), VOI merge is H(truth | segmentation), in bits. Voxels
    with truth 0 are not scored; segment 0 is a segment like any other. The adapted Rand error is
    that of scikit-image; SNEMI3D and CREMI take every voxel of segment 0 for an object of its own.
    """
    check_form(context, config, options, needed=("segmentations", "truth"))
    if config is None:
        task, scores = _score_here(options)
        folder = options["output"]
    else:
        task, scores = _score_on_workers(config, overrides, as_json, overwrite=overwrite, adopt=adopt)
        folder = task.home if is_url(task.output) else Path(task.output)
    written = [] if folder is None else write_results(folder, task, scores)
    _show(task, scores, written, as_json)


def _score_here(options: dict) -> tuple[CountOverlaps, list[Scores]]:
    """Count in this process."""
    task = CountOverlaps.from_dict(_as_config(options), source="The command line")
    if options["output"]:
        check_outside(places_of(task), options["output"])
        check_writable(options["output"])
    grid = task.grid()
    require_inputs(task.sources())
    task.check()
    counted = count_here(task, with_progress(grid.blocks(), grid.n_blocks))
    return task, score(task, {name: partial(list, [table]) for name, table in counted.items()})


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
    """Volumes by the given name, else by the last part of their path."""
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


def _score_on_workers(
    config: Path, overrides: tuple[str, ...], as_json: bool, **claim: bool
) -> tuple[CountOverlaps, list[Scores]]:
    """Count all blocks that are not done on workers, and store the scores in the database."""
    from em_blocks.db.evaluations import save_evaluations
    from em_blocks.db.runs import DONE
    from em_blocks.runtime.scheduler.run import run_blockwise

    task = CountOverlaps.from_file(config, overrides)
    report = run_blockwise(task, **claim)
    if not report.ok:  # scores of a part would be taken for those of the whole
        print_report(report, as_json)
        sys.exit(report.exit_code)
    with opened_store(task) as store:
        grid = task.grid()
        done = [grid.block(index) for index in store.indices(DONE)]
        scores = score(task, {name: partial(task.stored, name, done) for name in task.segmentations})
        save_evaluations(store.database, task.run, {s.name: s.document() for s in scores})
    return task, scores


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
    for path in written:
        console.print(f"Written: {path}", markup=False, highlight=False, soft_wrap=True)


def _scores_table(scores: list[Scores]) -> Table:
    """One column per segmentation, one row per figure with its unit."""
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
    """The worst splits or merges of a segmentation."""
    table = Table(title=f"Worst {side} of {found.name}")
    for name in (object_name, "voxels", "bits", parts):
        table.add_column(name, justify="right")
    table.add_column(f"largest {parts} (voxels)")
    for item in getattr(found.evaluation, f"worst_{side}")[:_SHOWN_OBJECTS]:
        largest = ", ".join(f"{id} ({voxels:,})" for id, voxels in item.largest[:3])
        table.add_row(str(item.id), f"{item.voxels:,}", f"{item.bits:.4f}", str(item.n_parts), largest)
    return table
