"""``em-blocks export``: volumes, synapses, connectomes and annotations for other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from em_blocks.cli.common import (
    config_argument,
    json_option,
    load_config,
    opened_store,
    set_option,
    shows_errors,
)
from em_blocks.cli.export_sections import tiff, vast
from em_blocks.cli.export_webknossos import webknossos
from em_blocks.cli.filters import FORMS, FilterType
from em_blocks.cli.params import ThreePositive
from em_blocks.errors import ConfigError
from em_blocks.json_text import json_text
from em_blocks.kernels.synapses.filters import Filter, Score
from em_blocks.runtime.runs.preflight import check_writable
from em_blocks.volumes.stores.whole_files import written_whole

if TYPE_CHECKING:
    from em_blocks.db.synapses import SynapseStore
    from em_blocks.export.synapses import FilterCount
    from em_blocks.geometry import Nm3
    from em_blocks.kernels.synapses.table import Synapses
    from em_blocks.tasks.base import RunConfig

# Where a config says which run's synapses it is about.
SYNAPSES_OF = {"extract_synapses": "run", "map_synapses": "synapses"}


@click.group(name="export")
def main() -> None:
    """Write volumes, and the synapses of a run in an order of filters, for other programs."""


main.add_command(tiff)
main.add_command(vast)
main.add_command(webknossos)


def selection_options(command: Callable) -> Callable:
    """CONFIG, and which of its synapses are meant."""
    for option in reversed((
        config_argument,
        click.option("--min-score", type=float, metavar="SCORE",
                     help="Leave out synapses of a lower score, before all filters."),
        click.option("--filter", "filters", multiple=True, type=FilterType(),
                     metavar="NAME[:OBJECTS][=VALUE]",
                     help=f"Leave out synapses; may be repeated, the order counts. {'; '.join(FORMS)}. "
                     "Objects are segments, unless others are named: self:skeleton."),
        click.option("--flip", is_flag=True,
                     help="Exchange presynaptic and postsynaptic sites, before all filters."),
        click.option("--unfinished", is_flag=True,
                     help="Export what there is of a run that is not done, or not mapped in all."),
        set_option,
    )):
        command = option(command)
    return command


@main.command()
@selection_options
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path),
              metavar="FILE", help=".json (FAFB links), .csv, .parquet, .sqlite, .hdf (CREMI), .npz.")
@click.option("--voxel-size", type=ThreePositive(float), metavar="Z,Y,X",
              help="For .hdf: of the neurons that it will be scored with, nm, as CREMI counts positions "
              "in their voxels. Default: of the run's volume.")
@json_option
@shows_errors
def synapses(output: Path, voxel_size: Nm3 | None, as_json: bool, **options) -> None:
    """Write the synapses that CONFIG (extract_synapses or map_synapses) is about to a table.

    Positions are nm; the order is z, y, x except in SQLite. In .hdf they are those of CREMI: indices
    of voxels times their size. FILE.filters.json says where the rows come from, and how many every
    filter was given and left out.
    """
    from em_blocks.volumes.synapse_files import format_of, write_synapses

    # A wrong name is said before a long wait.
    if format_of(output) == "voxel_pairs":
        raise ConfigError(
            f"{output} would hold bare voxels, without ids and scores. Name it otherwise: .csv files "
            "whose names do not end in _pre or _post hold positions in nm."
        )
    with _selected(output, **options) as found:
        write_synapses(
            output, found.tables, voxel_size=voxel_size or found.grid["voxel_size"],
            offset=found.grid["offset"],
        )
        _report(found, output, as_json)


@main.command()
@selection_options
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path),
              metavar="FILE", help=".graphml, .npz (sparse matrix), .csv or .json.")
@click.option("--objects", type=click.Choice(["segment", "skeleton", "supervoxel"]),
              default="segment", show_default=True, help="What the nodes are.")
@click.option("--min-weight", type=click.IntRange(min=1), default=1, show_default=True,
              help="Leave out connections of fewer synapses.")
@json_option
@shows_errors
def graph(output: Path, objects: str, min_weight: int, as_json: bool, **options) -> None:
    """Write the connectome: a directed graph, weighted by the number of synapses.

    Synapses with a site on background, or unmapped, connect no neurons. FILE.statistics.json describes
    the network, a PNG of the same name shows degrees, weights and the strongest neurons.
    """
    from em_blocks.export.connectome import write_connectome, writer_of
    from em_blocks.kernels.connectome.graph import ConnectomeCounter
    from em_blocks.kernels.connectome.statistics import network_statistics

    writer_of(output)
    counter = ConnectomeCounter(objects)
    with _selected(output, **options) as found:
        for table in found.tables:
            counter.add(table)
        _check_mapped(counter, objects)
        made = counter.result().at_least(min_weight)
        statistics = {"objects": objects, "min_weight": min_weight, **network_statistics(made),
                      "synapses_without_objects": counter.n_left_out}
        write_connectome(output, made)
        _write_json(_beside(output, "statistics"), statistics)
        _write_preview(output.with_suffix(".png"), made)
        _report(found, output, as_json, statistics)


@main.command()
@selection_options
@click.option("--output", required=True, type=click.Path(file_okay=False, path_type=Path),
              metavar="FOLDER", help="The layer; an earlier one there is replaced.")
@click.option("--url", help="Where a server will offer FOLDER. Default: port 9000 of this machine, "
              "with the folder above as its root.")
@click.option("--segments", "segments_url", metavar="SOURCE",
              help="Segmentation to show as well, as neuroglancer names it: precomputed://https://... "
              "Synapses are shown of the segments that are selected.")
@json_option
@shows_errors
def annotations(
    output: Path, url: str | None, segments_url: str | None, as_json: bool, **options
) -> None:
    """Write a neuroglancer layer: lines from postsynaptic to presynaptic sites.

    `em-blocks view FOLDER` shows it. Elsewhere, FOLDER.state.json is what neuroglancer shows it by
    (the {} button there); the server must allow other origins and understand byte ranges.
    """
    from em_blocks.volumes.viewer.annotations import viewer_state, write_annotations

    with _selected(output, **options) as found:
        layer = write_annotations(output, found.tables)
        url = url or f"http://localhost:9000/{output.absolute().name}"
        state = viewer_state(layer, url=url, segments_url=segments_url)
        _write_json(_beside(output, "state"), state)
        _report(found, output, as_json)


# -- which synapses ------------------------------------------------------------------------


@dataclass
class _Selected:
    """Synapses on their way, and where they come from."""

    tables: Iterable[Synapses]
    counts: list[FilterCount]
    source: dict
    grid: dict  # of the run that detected them

    def document(self) -> dict:
        """Return the contents of FILE.filters.json, once `tables` is exhausted."""
        n = self.counts[-1].after if self.counts else self.source["synapses"]
        return {**self.source, "filters": [c.document() for c in self.counts], "exported": n}


@contextmanager
def _selected(
    output: Path, *, config: Path, overrides: tuple[str, ...], min_score: float | None,
    filters: tuple[Filter, ...], flip: bool, unfinished: bool,
) -> Iterator[_Selected]:
    from em_blocks.db.runs import RunStore
    from em_blocks.db.synapses import SynapseStore
    from em_blocks.export.synapses import filtered
    from em_blocks.runtime.monitoring.mapped import require_mapped
    from em_blocks.tasks.places import places_of
    from em_blocks.volumes.stores.apart import check_outside

    task = load_config(config, overrides)
    run = run_of_synapses(config, task)
    check_outside(places_of(task), output)
    check_writable(output.absolute().parent)
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    if min_score is not None:
        filters = (Score(min_score), *filters)
    with opened_store(task) as store:
        state = _state(SynapseStore(store.client, task.db_name, run), unfinished)
        if not unfinished:
            require_mapped(RunStore(store.client, task.db_name, run))
        rows = SynapseStore(store.client, task.db_name, run)
        n = rows.count()
        with _progress(rows, n) as tables:
            if flip:
                tables = (table.flipped() for table in tables)
            tables, counts = filtered(tables, filters, n_rows=n, folder=output.absolute().parent)
            source = {"run": run, "database": task.db_name, "state": state, "flipped": flip,
                      "synapses": n}
            grid = RunStore(store.client, task.db_name, run).load()["grid"]
            yield _Selected(tables, counts, source, grid)


def run_of_synapses(config: Path, task: RunConfig) -> str:
    """Return the run that detected the synapses that a config is about."""
    if task.kind not in SYNAPSES_OF:
        raise ConfigError(
            f"{config} is of kind {task.kind!r}, which has no synapses. Name the config that they were "
            f"detected or mapped with: one of {', '.join(SYNAPSES_OF)}."
        )
    return getattr(task, SYNAPSES_OF[task.kind])


def _state(synapses: SynapseStore, unfinished: bool) -> str:
    """State of the run; raises `ConfigError` unless it is done."""
    from em_blocks.db.runs import RunStore
    from em_blocks.runtime.monitoring.status import run_status

    database = synapses.collection.database
    status = run_status(RunStore(database.client, database.name, synapses.run))
    blocks = status["blocks"]
    left = blocks["total"] - blocks["masked"] - blocks["done"]
    if (status["state"] != "done" or left) and not unfinished:  # `verify` may find lost rows later
        raise ConfigError(
            f"Run {synapses.run!r} is {status['state']}: {left} of {blocks['total']} blocks are not "
            "done. An export would silently lack their synapses. Run the detection again, "
            "or give --unfinished to export what there is."
        )
    return status["state"]


@contextmanager
def _progress(rows: SynapseStore, n: int) -> Iterator[Iterator[Synapses]]:
    """Yield the tables of a run with a bar on a terminal; stdout is for results."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Reading synapses", total=n)

        def tables() -> Iterator[Synapses]:
            for table in rows.tables():
                yield table
                progress.advance(bar, len(table))

        yield tables()


# -- results -------------------------------------------------------------------------------


def _check_mapped(counter, objects: str) -> None:
    if counter.n_left_out and not counter.n_synapses:
        raise ConfigError(
            f"None of {counter.n_left_out} synapses has a {objects} at both sites, so there are "
            "no connections. Run `em-blocks map-synapses` first, or choose other --objects."
        )


def _write_preview(path: Path, made) -> None:
    from PIL import Image

    from em_blocks.kernels.plots.connectome import connectome_preview

    with written_whole(path) as file:
        Image.fromarray(connectome_preview(made)).save(file)


def _beside(output: Path, name: str) -> Path:
    return output.with_name(f"{output.absolute().name}.{name}.json")


def _write_json(path: Path, values: dict) -> None:
    with written_whole(path) as file:
        file.write_text(json_text(values, indent=2) + "\n")


def _report(
    found: _Selected, output: Path, as_json: bool, statistics: dict | None = None
) -> None:
    document = found.document()
    _write_json(_beside(output, "filters"), document)
    if as_json:
        shown = document if statistics is None else {**document, "statistics": statistics}
        click.echo(json_text({"output": str(output), **shown}, indent=2))
        return
    console = Console()
    console.print(_filters_table(found))
    if statistics is not None:
        console.print(_statistics_table(statistics))
    console.print(f"Written: {output}", markup=False, highlight=False, soft_wrap=True)


def _filters_table(found: _Selected) -> Table:
    table = Table(title=f"Synapses of {found.source['run']}")
    table.add_column("")
    table.add_column("synapses", justify="right")
    table.add_column("removed", justify="right")
    flipped = ", pre and post exchanged" if found.source["flipped"] else ""
    table.add_row(f"all{flipped}", f"{found.source['synapses']:,}", "")
    for count in found.counts:
        table.add_row(f"without {count.filter}", f"{count.after:,}", f"{count.removed:,}")
    return table


def _statistics_table(statistics: dict) -> Table:
    table = Table(title="Network", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in statistics.items():
        table.add_row(name.replace("_", " "), _shown(value))
    return table


def _shown(value: str | int | float | None) -> str:
    if value is None:
        return "not computed"
    return value if isinstance(value, str) else f"{value:,.4g}" if value % 1 else f"{value:,.0f}"
