"""``em-blocks evaluate connectivity``: do predicted synapses connect the right neurons?"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

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
from em_blocks.config import is_url
from em_blocks.json_text import json_text
from em_blocks.runtime.runs.preflight import check_writable
from em_blocks.tasks.places import places_of
from em_blocks.volumes.stores.apart import check_outside

if TYPE_CHECKING:
    from em_blocks.evaluation.connectivity import Evaluated
    from em_blocks.tasks.evaluation.credit_synapses import CreditSynapses

# numba, which the tasks need, takes a second to load: other commands shall not wait for it.


@click.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--neurons", metavar="VOLUME", help="Segments, best of all true neurons.")
@click.option("--truth", metavar="VOLUME", help="True synapses, one id each.")
@click.option("--prediction", metavar="VOLUME", help="Predicted synapses, one id each.")
@click.option("--reach-voxels", type=click.IntRange(min=1), metavar="N",
              help="Steps from a voxel to both neurons, the first in 3-D, others in the section. "
              "Default: 1.")
@click.option("--reach-nm", type=float, metavar="NM", help="The same in nm, in all directions.")
@click.option("--mode", type=click.Choice(["all", "best", "directed"]), default="all",
              show_default=True, help="Credit a synapse to every pair in reach, to the one with most of "
              "its voxels, or to known partners.")
@click.option("--min-voxels", type=click.IntRange(min=1), default=50, show_default=True,
              help="Leave out smaller neurons.")
@click.option("--min-overlap", type=click.IntRange(min=1), default=1, show_default=True,
              help="Voxels of a synapse within reach of both neurons.")
@click.option("--exclude", multiple=True, type=ID, metavar="ID",
              help="Leave out this neuron; may be repeated.")
@click.option("--truth-partners", metavar="FILE", help="Partners that tell directions in truth.")
@click.option("--prediction-partners", metavar="FILE", help="... and in the prediction.")
@click.option("--contacts", is_flag=True, help="Also measure the contact zones of all pairs.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Write matrices, edges, synapses and a picture there.")
@set_option
@click.option("--overwrite", is_flag=True, help="With CONFIG: do all blocks again.")
@click.option("--adopt", is_flag=True, help="With CONFIG: keep blocks although settings differ.")
@json_option
@shows_errors
@click.pass_context
def connectivity(context: click.Context, config: Path | None, overrides: tuple[str, ...],
                 overwrite: bool, adopt: bool, as_json: bool, **options) -> None:
    """Score predicted synapses by the pairs of neurons that they connect.

    Either name three volumes on one voxel grid, to count in this process; or a CONFIG (JSON), to
    count blocks on workers and keep tables and scores. VOLUME is path.zarr/dataset, or
    file.h5:dataset. In volumes of synapses 0 is background, and so are the marks of CREMI.

    A synapse is credited to every two neurons that both lie within reach of one of its voxels.
    Precision and recall count pairs of neurons with at least one synapse.
    """
    check_form(context, config, options, needed=("neurons", "truth", "prediction"))
    if config is None:
        task, found = _here(options)
        folder = options["output"]
    else:
        task, found = _on_workers(config, overrides, as_json, overwrite=overwrite, adopt=adopt)
        folder = task.home if is_url(task.output) else Path(task.output)
    written = [] if folder is None else _write(folder, found)
    if as_json:
        click.echo(json_text(found.headline()))
    else:
        _show(found, written)


def _here(options: dict) -> tuple[CreditSynapses, Evaluated]:
    """Count in this process."""
    from em_blocks.evaluation.connectivity import credit_here, evaluate_connectivity
    from em_blocks.tasks.evaluation.credit_synapses import CreditSynapses

    task = CreditSynapses.from_dict(_as_config(options), source="The command line")
    if options["output"]:
        check_outside(places_of(task), options["output"])
        check_writable(options["output"])
    grid = task.grid()
    require_inputs(task.sources())
    task.check()
    tables = credit_here(task, with_progress(grid.blocks(), grid.n_blocks))
    return task, evaluate_connectivity(task, tables)


def _as_config(options: dict) -> dict:
    values = options | {
        "kind": "credit_synapses", "run": "evaluation",
        "output": str(options["output"] or "evaluation"), "exclude": list(options["exclude"]),
    }
    if options["reach_voxels"] is None and options["reach_nm"] is None:
        values["reach_voxels"] = 1
    return values


def _on_workers(
    config: Path, overrides: tuple[str, ...], as_json: bool, **claim: bool
) -> tuple[CreditSynapses, Evaluated]:
    """Do all blocks that are not done on workers, and store the scores in the database."""
    from em_blocks.db.evaluations import save_evaluations
    from em_blocks.db.runs import DONE
    from em_blocks.evaluation.connectivity import evaluate_connectivity
    from em_blocks.runtime.scheduler.run import run_blockwise
    from em_blocks.tasks.evaluation.credit_synapses import CreditSynapses

    task = CreditSynapses.from_file(config, overrides)
    report = run_blockwise(task, **claim)
    if not report.ok:  # scores of a part would be taken for those of the whole
        print_report(report, as_json)
        sys.exit(report.exit_code)
    with opened_store(task) as store:
        grid = task.grid()
        done = [grid.block(index) for index in store.indices(DONE)]
        names = [spec.name for spec in task.output_specs()]
        found = evaluate_connectivity(task, {name: partial(task.stored, name, done) for name in names})
        save_evaluations(store.database, task.run, {"connectivity": found.document()})
    return task, found


def _write(folder: Path, found: Evaluated) -> list[Path]:
    from em_blocks.evaluation.connectivity import write_connectivity

    return write_connectivity(folder, found)


def _show(found: Evaluated, written: list[Path]) -> None:
    """One row per figure, with its unit."""
    console, scores, n_of = Console(), found.scores, found.document()
    pairs = "directed pairs" if found.directed else "pairs"
    table = Table(title="Connected pairs of neurons", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name in ("precision", "recall", "fscore"):
        table.add_row(name, f"{getattr(scores, name):.4f}")
    table.add_row("neurons", f"{scores.n_neurons:,}")
    table.add_row(f"{pairs} in both", f"{scores.tp:,}")
    table.add_row(f"{pairs} only in the prediction", f"{scores.fp:,}")
    table.add_row(f"{pairs} only in truth", f"{scores.fn:,}")
    for side in ("truth", "prediction"):
        table.add_row(f"synapses, {side}", f"{n_of[side]['synapses']:,}")
        table.add_row("  between no two neurons", f"{n_of[side]['synapses_without_pair']:,}")
        table.add_row("  pairs per synapse (mean)", f"{n_of[side]['pairs_per_synapse']['mean']:.1f}")
    console.print(table)
    for path in written:
        console.print(f"Written: {path}", markup=False, highlight=False, soft_wrap=True)
