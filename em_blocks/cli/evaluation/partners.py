"""``em-blocks evaluate synapses``: are predicted partners true?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from em_blocks.cli.common import config_argument, json_option, set_option, shows_errors
from em_blocks.cli.evaluation.common import output_option, print_written, require_inputs
from em_blocks.cli.params import Numbers
from em_blocks.json_text import json_text
from em_blocks.runtime.runs.preflight import check_writable
from em_blocks.volumes.stores.apart import check_outside, paths_in

if TYPE_CHECKING:
    from em_blocks.evaluation.partners import Evaluated, Evaluation
    from em_blocks.evaluation.partners_config import EvaluateSynapses

_SHOWN_NEURONS = 5
_SHOWN_EDGES = (1, 2, 3, 5, 10, 20)


_NUMBERS = Numbers(float, "0,5,10")


@click.command()
@config_argument
@click.option("--thresholds", type=_NUMBERS, metavar="A,B,...",
              help="Score thresholds of a curve, instead of those of the config.")
@output_option("scores by threshold and neuron, lists of links and plots")
@set_option
@json_option
@shows_errors
def synapses(config: Path, thresholds: tuple[float, ...] | None, output: Path | None,
             overrides: tuple[str, ...], as_json: bool) -> None:
    """Score predicted synaptic partners against true ones, as CONFIG (JSON) says.

    A predicted link is a true positive if it is matched with a true one: it joins the same
    neurons, and its sites are near enough. Links are matched one to one at the least total
    distance. With neuron_ids, links are scored neuron by neuron and the counts added up.
    """
    from em_blocks.evaluation.partners import evaluate_synapses
    from em_blocks.evaluation.partners_config import EvaluateSynapses

    if thresholds is not None:
        overrides += ("score_threshold=null", f"score_thresholds={json.dumps(thresholds)}")
    if output is not None:
        overrides += (f"output={json.dumps(str(output.absolute()))}",)
    job = EvaluateSynapses.from_file(config, overrides)
    if job.output is not None:
        check_outside(dict(paths_in(job.model_dump(mode="json", exclude={"output"}))), job.output)
        check_writable(job.output)
    require_inputs({"neurons": job.neurons})
    found = evaluate_synapses(job)
    written = [] if job.output is None else _write(job, found)
    if as_json:
        is_curve = job.score_thresholds is not None
        click.echo(json_text(_as_json(found.thresholds, is_curve=is_curve)))
    else:
        _show(found, written)


def _write(job: EvaluateSynapses, found: Evaluation) -> list[Path]:
    from em_blocks.evaluation.partners_files import write_scores

    return write_scores(job.output, job, found)


def _as_json(found: list[Evaluated], *, is_curve: bool) -> dict | list[dict]:
    if not is_curve:
        return found[0].outcome.score.document()
    return [
        {"score_threshold": item.threshold, **item.outcome.score.document()} for item in found
    ]


def _show(found: Evaluation, written: list[Path]) -> None:
    best, console = found.best, Console()
    console.print(_scores_table(found))
    console.print(_filters_table(best))
    if best.outcome.neurons:
        console.print(_neurons_table(best))
    if best.edges:
        console.print(_edges_table(best))
    print_written(console, written)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for n, name in enumerate(columns):
        table.add_column(name, justify="right" if n else "left")
    return table


def _figures(score) -> list[str]:
    return [
        f"{score.fscore:.4f}", f"{score.precision:.4f}", f"{score.recall:.4f}", f"{score.tp:,}",
        f"{score.fp:,}", f"{score.fn:,}",
    ]


_SCORE = ("F-score", "precision", "recall", "tp", "fp", "fn")


def _scores_table(found: Evaluation) -> Table:
    table = _table("Predicted against true partners", "score from", *_SCORE)
    for item in found.thresholds:
        style = "bold" if item is found.best and len(found.thresholds) > 1 else None
        table.add_row(_name(item.threshold), *_figures(item.outcome.score), style=style)
    if found.baseline is not None:
        table.add_row("by chance", *_figures(found.baseline.outcome.score))
    return table


def _name(threshold: float | None) -> str:
    return "any" if threshold is None else f"{threshold:g}"


def _filters_table(found: Evaluated) -> Table:
    """Return how many predicted links every filter removed, and how many were compared."""
    table = _table(f"Filtered predictions, score from {_name(found.threshold)}",
                   "filter", "removed", "left")
    kept, steps = len(found.outcome.prediction), found.outcome.steps
    every = "(links of the neurons)" if found.outcome.neurons else "(all links)"
    table.add_row(every, "", f"{steps[0].before if steps else kept:,}")
    for step in steps:
        removed = len(step.removed)
        table.add_row(str(step.filter), f"{removed:,}", f"{step.before - removed:,}")
    if found.n_unmapped:
        table.add_row("(left, but unmapped at a site)", "", f"{found.n_unmapped:,}")
    return table


def _neurons_table(found: Evaluated) -> Table:
    neurons = found.outcome.neurons
    shown = sorted(neurons, key=lambda id: -neurons[id].fp - neurons[id].fn)[:_SHOWN_NEURONS]
    table = _table(
        f"Neurons with most errors ({len(shown)} of {len(neurons)})", "neuron", *_SCORE
    )
    for id in shown:
        table.add_row(str(id), *_figures(neurons[id]))
    return table


def _edges_table(found: Evaluated) -> Table:
    table = _table("Connections of two neurons", "links", "accuracy", *_SCORE)
    for edge in found.edges:
        if edge.threshold in _SHOWN_EDGES:
            name = f"{edge.threshold}+"
            table.add_row(name, f"{edge.accuracy:.4f}", *_figures(edge.score))
    return table
