"""``em-blocks runs show RUN``."""

from __future__ import annotations

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from em_blocks.cli.common import json_option, shows_errors
from em_blocks.cli.trainings.common import RUN, db_option, run_argument
from em_blocks.db.trainings.run_database import run_database_if
from em_blocks.json_text import json_text
from em_blocks.training.records.recorded import Recorded, find_recorded, summary


@click.command(name="show", help=f"Show one training. {RUN}")
@run_argument
@db_option
@json_option
@shows_errors
def main(run: str, db: str | None, as_json: bool) -> None:
    with run_database_if(db) as store:
        training = find_recorded(store, run)
        curves = {name: len(series) for name, series in training.curves().items()}
        uid = training.document.get("uid")
        predictions = store.predictions_of(uid) if store is not None and uid else []
    if as_json:
        shown = {**training.document, **summary(training), "best": training.document.get("best")}
        shown |= {"curves": curves, "predictions": predictions}
        click.echo(json_text(shown, indent=2, default=str))
    else:
        _print(training, curves, predictions)


def _print(training: Recorded, curves: dict[str, int], predictions: list[dict]) -> None:
    document, console = training.document, Console()
    console.print(_overview(training, document))
    console.print(_checkpoints(document))
    for kind in ("sources", "validation"):
        for data in document["data"][kind]:
            place = f"{data['begin']} to {data['end']}"
            console.print(f"{kind}: {data['name']} {place}, sha256 {data['sha256'][:16]}", markup=False)
    for name, note in (document.get("notes") or {}).items():
        console.print(f"{name}: {json_text(note)}", markup=False)
    for change in document.get("changes", ()):
        console.print(f"from iteration {change['iteration']}: {'; '.join(change['changed'])}",
                      markup=False)
    console.print("curves: " + ", ".join(f"{n} ({p})" for n, p in sorted(curves.items())),
                  markup=False)
    if best := document.get("notes", {}).get("checkpoints", {}).get("best"):
        note = document["notes"]["checkpoints"]
        console.print(f"evaluate checkpoints: best {note['score']} {best['value']:.4f} at "
                      f"{best['iteration']}, on {', '.join(note['data'])}", markup=False)
    for one in predictions:
        console.print(f"prediction {one['_id']}: {one['output']}, of iteration "
                      f"{one['training']['iteration']}", markup=False)


def _overview(training: Recorded, document: dict) -> Table:
    about = summary(training)
    table = Table(title=f"{training}: {about['state']}", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name in ("setup", "folder", "host", "started", "seconds"):
        table.add_row(name, escape(str(about[name])))
    table.add_row("iteration", f"{about['iteration']} of {about['iterations']}")
    for name in ("reason", "command", "seed", "device"):
        if document.get(name) is not None:
            table.add_row(name, escape(str(document[name])))
    for place, commit in (document.get("git") or {}).items():
        if commit:
            changed = ", with changes" if commit["dirty"] else ""
            table.add_row(f"git of {place}", commit["commit"] + changed)
    for name, best in (document.get("best_of_each") or {}).items():
        table.add_row(f"best {name}", f"{best['value']:.4f} at {best['iteration']}")
    return table


def _checkpoints(document: dict) -> Table:
    table = Table()
    for name in ("checkpoint", "iteration", "MB", "sha256"):
        table.add_column(name, overflow="fold")
    for one in document.get("checkpoints", ()):
        table.add_row(one["file"], str(one["iteration"]), f"{one['bytes'] / 1e6:.2f}",
                      one["sha256"][:16])
    return table
