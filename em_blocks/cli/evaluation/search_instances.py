"""``em-blocks search-instances CONFIG``: the thresholds that make the best instances."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from em_blocks.cli.common import config_argument, json_option, set_option, shows_errors
from em_blocks.cli.evaluation.common import print_written, require_inputs, with_progress
from em_blocks.json_text import json_text

if TYPE_CHECKING:
    from em_blocks.evaluation.instance_search.search import Found

_SHOWN = 5
"""Choices in the table."""


@click.command(name="search-instances")
@config_argument
@set_option
@json_option
@shows_errors
def main(config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Try thresholds of segment-instances on validation data, and keep the best.

    CONFIG (JSON, kind search_instances) names a config of segment-instances, true instances, and
    values to try for its keys. All combinations are scored by F1 of objects. Scores are kept in the
    folder of the results: a command that is repeated, also with further values, computes only what
    is new. The folder gets search.json, search.csv and search.png, and best.json, the config of
    segment-instances with the best values:

        em-blocks segment-instances FOLDER/best.json --set foreground=... --set output=...
    """
    from em_blocks.evaluation.instance_search.config import SearchInstances
    from em_blocks.evaluation.instance_search.results import write_results
    from em_blocks.evaluation.instance_search.search import search
    from em_blocks.runtime.runs.preflight import check_writable
    from em_blocks.volumes.stores.apart import check_outside

    task = SearchInstances.from_file(config, overrides)
    inputs = {**task.segment.maps, "mask": task.segment.mask, "truth": task.truth}
    require_inputs(inputs)
    check_outside({k: str(v) for k, v in inputs.items() if v is not None}, task.folder)
    check_writable(task.folder)
    found = search(task, lambda choices: with_progress(choices, len(choices), "Trying thresholds"))
    written = write_results(found)
    if as_json:
        click.echo(json_text(found.document(), indent=2))
    else:
        _show(found, written)


def _show(found: Found, written: list[Path]) -> None:
    console, table = Console(), Table(title="Thresholds of instances")
    for name in ("score", *found.task.grid.lists, *(f"F1 at {iou:g}" for iou in found.task.ious)):
        table.add_column(name, justify="right", overflow="fold")
    best = found.best
    others = sorted((t for t in found.tried if t is not best), key=lambda tried: -tried.score)
    for tried in [best, *others[: _SHOWN - 1]]:
        table.add_row(
            f"{tried.score:.4f}", *map(str, tried.values.values()),
            *(f"{score['fscore']:.4f}" for score in tried.scores),
            style="bold" if tried is best else None,
        )
    console.print(table)
    console.print(
        f"{len(found.tried)} combinations against {found.n_truth} true instances, "
        f"{found.n_cached} of them known from earlier."
    )
    print_written(console, written)
