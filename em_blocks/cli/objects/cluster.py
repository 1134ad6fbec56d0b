"""``em-blocks cluster CONFIG``: clusters of similar objects."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from em_blocks.cli.common import config_argument, json_option, set_option, shows_errors
from em_blocks.cli.evaluation.common import print_written
from em_blocks.json_text import json_text

_SCORES = ("accuracy", "nmi", "ari", "silhouette")
_SHOWN = 20
"""Clusters in the table."""


@click.command(name="cluster")
@config_argument
@set_option
@json_option
@shows_errors
def main(config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Find clusters of similar objects in tables of features.

    CONFIG (JSON, kind cluster_objects) names tables with a column id, the columns to compare
    objects by, and a method. The folder of results gets clusters.parquet and clusters.csv (id,
    cluster: 1 is the largest, 0 is noise), report.json, and view.png. Where classes of some objects
    are known, clusters are scored by them.
    """
    from em_blocks.evaluation.object_classes.cluster import cluster_objects
    from em_blocks.evaluation.object_classes.config import ClusterObjects
    from em_blocks.evaluation.object_classes.results import write_clusters
    from em_blocks.runtime.runs.preflight import check_writable
    from em_blocks.volumes.stores.apart import check_outside

    task = ClusterObjects.from_file(config, overrides)
    check_outside({name: str(path) for name, path in task.inputs.items()}, task.output)
    check_writable(task.output)
    found = cluster_objects(task)
    report = found.document()
    written = write_clusters(found, report)
    if as_json:
        click.echo(json_text(report, indent=2))
    else:
        _show(report, written)


def _show(report: dict, written: list[Path]) -> None:
    console, table = Console(), Table(title=f"{report['objects']} objects")
    table.add_column("cluster", justify="right")
    table.add_column("objects", justify="right")
    for cluster, n in list(report["sizes"].items())[:_SHOWN]:
        table.add_row("noise" if cluster == "0" else cluster, str(n))
    console.print(table)
    if len(report["sizes"]) > _SHOWN:
        console.print(f"... and {len(report['sizes']) - _SHOWN} smaller clusters.")
    for name in _SCORES:
        if report.get(name) is not None:
            console.print(f"{name} {report[name]:.4f}")
    for why, n in report["dropped"].items():
        if n:
            console.print(f"{n} objects left out: {why.replace('_', ' ')}.")
    print_written(console, written)
