"""``em-blocks classify CONFIG``: classes of objects, learned from examples."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from em_blocks.cli.common import config_argument, json_option, set_option, shows_errors
from em_blocks.cli.evaluation.common import print_written
from em_blocks.json_text import json_text


@click.command(name="classify")
@config_argument
@set_option
@json_option
@shows_errors
def main(config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Tell the class of every object from some examples, by a random forest.

    CONFIG (JSON, kind classify_objects) names tables with a column id, the columns to tell classes
    by, and a file of examples (id, class). The folder of results gets classes.parquet and classes.csv,
    report.json, and uncertain.csv: the objects whose labels would help most. Label them, add them to
    the examples, and repeat the command.
    """
    from em_blocks.evaluation.object_classes.config import ClassifyObjects
    from em_blocks.evaluation.object_classes.forest import classify_objects, write_classes
    from em_blocks.runtime.runs.preflight import check_writable
    from em_blocks.volumes.stores.apart import check_outside

    task = ClassifyObjects.from_file(config, overrides)
    check_outside({name: str(path) for name, path in task.inputs.items()}, task.output)
    check_writable(task.output)
    found = classify_objects(task)
    report = found.document()
    written = write_classes(found, report)
    if as_json:
        click.echo(json_text(report, indent=2))
    else:
        _show(report, written)


def _show(report: dict, written: list[Path]) -> None:
    console, table = Console(), Table(title=f"{report['objects']} objects")
    for name in ("class", "objects", "examples", "out-of-bag recall"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for name, row in report["classes"].items():
        table.add_row(
            name, str(report["sizes"][name]), str(row["examples"]), f"{row['out_of_bag_recall']:.3f}"
        )
    console.print(table)
    console.print(f"out-of-bag accuracy {report['out_of_bag_accuracy']:.4f}")
    for name, share in list(report["importances"].items())[:5]:
        console.print(f"importance of {name} {share:.3f}", markup=False)
    print_written(console, written)
