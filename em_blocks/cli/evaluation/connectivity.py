"""``em-blocks evaluate connectivity``: do predicted synapses connect the right neurons?"""

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
)
from em_blocks.cli.params import options_from
from em_blocks.evaluation.connectivity import (
    Evaluated,
    credit_here,
    evaluate_connectivity,
    write_connectivity,
)
from em_blocks.json_text import json_text
from em_blocks.tasks.evaluation.credit_synapses import CreditSynapses


@click.command()
@options_from(
    CreditSynapses, "neurons", "truth", "prediction", "reach_voxels", "reach_nm", "mode", "min_voxels",
    "min_overlap", "exclude", "truth_partners", "prediction_partners", "contacts",
)
@output_option("matrices, edges, synapses and a picture")
@config_options
@shows_errors
def connectivity(context: click.Context, config: Path | None, overrides: tuple[str, ...],
                 as_json: bool, overwrite: bool, adopt: bool, **options) -> None:
    """Score predicted synapses by the pairs of neurons that they connect.

    Either name three volumes on one voxel grid, to count in this process; or a CONFIG (JSON), to
    count blocks on workers and keep tables and scores. VOLUME is path.zarr/dataset, or
    file.h5:dataset. In volumes of synapses 0 is background, and so are the marks of CREMI. Without
    --reach-voxels and --reach-nm, a synapse is within reach of neurons one voxel away.

    A synapse is credited to every two neurons that both lie within reach of one of its voxels.
    Precision and recall count pairs of neurons with at least one synapse.
    """
    check_form(context, config, options, needed=("neurons", "truth", "prediction"))
    if config is None:
        found, folder = _here(options), options["output"]
    else:
        task = CreditSynapses.from_file(config, overrides)
        found = _on_workers(task, as_json, {"overwrite": overwrite, "adopt": adopt})
        folder = folder_of(task)
    written = [] if folder is None else write_connectivity(folder, found)
    if as_json:
        click.echo(json_text(found.headline()))
    else:
        _show(found, written)


def _here(options: dict) -> Evaluated:
    """Count in this process."""
    task = CreditSynapses.from_dict(_as_config(options), source="The command line")
    tables = credit_here(task, blocks_here(task, options["output"]))
    return evaluate_connectivity(task, tables)


def _as_config(options: dict) -> dict:
    values = options | {
        "kind": "credit_synapses", "run": "evaluation",
        "output": str(options["output"] or "evaluation"), "exclude": list(options["exclude"]),
    }
    if options["reach_voxels"] is None and options["reach_nm"] is None:
        values["reach_voxels"] = 1
    return values


def _on_workers(task: CreditSynapses, as_json: bool, claim: dict[str, bool]) -> Evaluated:
    names = [spec.name for spec in task.output_specs()]
    return scored_on_workers(
        task, as_json, claim,
        lambda done: evaluate_connectivity(
            task, {name: partial(task.stored, name, done) for name in names}
        ),
        lambda found: {"connectivity": found.document()},
    )


def _show(found: Evaluated, written: list[Path]) -> None:
    """Return one row per figure, with its unit."""
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
    print_written(console, written)
